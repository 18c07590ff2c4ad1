//! A mesh directory: `mesh.yaml`, `policies/`, `domains/<domain>/{domain.yaml, policies/}`, `domains/<domain>/products/<product>/product.yaml`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use datamesh_core::access::{GOVERNANCE_FORMAT, Governance, PolicyFile, Waiver};
use datamesh_core::contract::DataProduct;
use datamesh_core::domain::Domain;
use datamesh_core::ids::split_major;
use datamesh_core::ownership::Ownership;
use datamesh_core::policy_test::PolicyCase;
use datamesh_core::{Diagnostic, Error, ErrorCode, Level, Location, Name, ProductId, ProductKey, Result};

use crate::read::{self, MeshSettings};
use crate::yaml::{Document, MAX_BYTES, Node};

/// A product with the file it was read from.
#[derive(Clone, Debug)]
pub struct LoadedProduct {
    /// The manifest's path, as found.
    pub path: PathBuf,
    /// The contract.
    pub contract: DataProduct,
}

/// What a mesh directory holds. Documents with errors are left out and reported.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// The mesh's name.
    pub name: Option<String>,
    /// The `mesh.yaml` and what it says.
    pub settings: Option<(PathBuf, MeshSettings)>,
    /// The domains, by folder.
    pub domains: Vec<(PathBuf, Domain)>,
    /// The products, by path.
    pub products: Vec<LoadedProduct>,
    /// The files of policies, by path: those of the mesh, then those of its domains.
    pub policies: Vec<PolicyFile>,
    /// The waivers of policies, in the same order.
    pub waivers: Vec<Waiver>,
    /// The tests of policies, in the same order.
    pub policy_cases: Vec<PolicyCase>,
    /// Every problem found, by file.
    pub diagnostics: Vec<Diagnostic>,
    /// Texts of the files with problems, for display.
    pub sources: BTreeMap<String, String>,
    /// How many documents were read.
    pub documents: usize,
    /// Where in `products` each major version is.
    by_key: HashMap<ProductKey, usize>,
    /// The files of the waivers, with how many each has.
    pub(crate) waiver_files: Vec<(PathBuf, usize)>,
    /// The files of the tests of policies, with how many each has.
    pub(crate) case_files: Vec<(PathBuf, usize)>,
}

impl Mesh {
    /// Whether a document had an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// Adds a problem that was found after a document was read, with the text of its file.
    pub fn report(&mut self, diagnostic: Diagnostic, source: String) {
        self.sources.insert(diagnostic.location.file.clone(), source);
        self.diagnostics.push(diagnostic);
    }

    /// The owners and teams that it declares outside its products.
    pub fn ownership(&self) -> Ownership {
        let settings = self.settings.as_ref().map(|(_, settings)| settings);
        let owner = settings.and_then(|settings| settings.owner.as_deref());
        let teams = settings.map(|settings| settings.teams.as_slice()).unwrap_or_default();
        Ownership::new(owner, teams, self.domains.iter().map(|(_, domain)| domain))
    }

    /// What the mesh agreed on: principals, policies and waivers.
    pub fn governance(&self) -> Governance {
        let settings = self.settings.as_ref().map(|(_, settings)| settings.clone());
        let principals = settings.as_ref().map(|settings| settings.principals.clone()).unwrap_or_default();
        Governance {
            format: GOVERNANCE_FORMAT,
            owner: settings.as_ref().and_then(|settings| settings.owner.clone()),
            teams: settings.map(|settings| settings.teams).unwrap_or_default(),
            attributes: principals.attributes,
            roles: principals.roles,
            principals: principals.principals,
            policies: self.policies.clone(),
            waivers: self.waivers.clone(),
            disabled: principals.disabled,
            separation_of_duties: principals.separation_of_duties,
        }
    }

    pub(crate) fn read<T>(
        &mut self,
        path: &Path,
        read: impl FnOnce(&mut Document<'_>, &Node) -> Option<T>,
    ) -> Result<Option<T>> {
        let file = path.display().to_string();
        let bytes = read_bounded(path)?;
        self.documents += 1;
        let mut document = match Document::new(&file, &bytes) {
            Ok(document) => document,
            Err(diagnostic) => {
                self.diagnostics.push(*diagnostic);
                return Ok(None);
            }
        };
        let value = document.parse().and_then(|root| read(&mut document, &root));
        let failed = document.has_errors();
        let found = document.finish();
        if !found.is_empty() {
            self.sources.insert(file, String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned());
            self.diagnostics.extend(found);
        }
        Ok(value.filter(|_| !failed))
    }

    pub(crate) fn read_product(&mut self, path: &Path, domain: Option<&Name>) -> Result<()> {
        let contract = self.read(path, |document, root| read::product(document, root, domain))?;
        let Some(mut contract) = contract else { return Ok(()) };
        let before = self.diagnostics.len();
        crate::inputs::load_transforms(self, path, &mut contract)?;
        if self.diagnostics[before..].iter().any(Diagnostic::is_error) {
            return Ok(());
        }
        if let Some(diagnostic) = misplaced_major(path, &contract) {
            self.diagnostics.push(diagnostic);
            return Ok(());
        }
        let key = contract.key();
        let clash = self.by_key.get(&key).and_then(|at| self.products.get(*at));
        if let Some(clash) = clash.filter(|clash| clash.contract.key() == key) {
            self.diagnostics.push(Diagnostic {
                id: "duplicate-product",
                level: Level::Error,
                message: format!(
                    "`{}` version {} is declared in `{}` too",
                    contract.id,
                    contract.version.major,
                    clash.path.display()
                ),
                help: Some("give each product a name of its own, or raise the major version of one".into()),
                location: Location { file: path.display().to_string(), ..Location::default() },
            });
        } else {
            self.by_key.insert(key, self.products.len());
            self.products.push(LoadedProduct { path: path.to_owned(), contract });
        }
        Ok(())
    }

    /// Reads a domain's folder: its `domain.yaml`, where there is one, and its products.
    fn read_domain(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let file = folder.join("domain.yaml");
        let declared = file.is_file();
        let domain = if declared { self.read(&file, crate::domain::read)? } else { None };
        let name = domain.as_ref().map(|domain: &Domain| domain.name.clone());
        // A product of a domain that cannot be read belongs to nobody: its own problems are told, and it is left out.
        let known = name.is_some() || !declared;
        let name = name.or_else(|| folder_name(folder));
        if let Some(domain) = domain {
            if let Some((other, _)) = self.domains.iter().find(|(_, other)| other.name.sql() == domain.name.sql()) {
                self.diagnostics.push(Diagnostic {
                    id: "duplicate-domain",
                    level: Level::Error,
                    message: format!("domain `{}` is declared in `{}` too", domain.name, other.display()),
                    help: Some("give each domain a name of its own".into()),
                    location: Location { file: file.display().to_string(), ..Location::default() },
                });
            }
            self.domains.push((folder.to_owned(), domain));
        }
        if known && let Some(name) = &name {
            crate::policies::read(self, root, folder, Some(name))?;
        }
        for product in subfolders(&folder.join("products"))? {
            let before = self.products.len();
            self.read_majors(&product, name.as_ref())?;
            if !known {
                self.products.truncate(before);
            }
        }
        Ok(())
    }

    /// Reads a product's folder: `product.yaml`, and a `product.v<major>.yaml` for each older major that is kept up.
    fn read_majors(&mut self, folder: &Path, domain: Option<&Name>) -> Result<()> {
        let before = self.products.len();
        for file in manifests(folder)? {
            self.read_product(&file, domain)?;
        }
        let found = &self.products[before.min(self.products.len())..];
        let Some(first) = found.first() else { return Ok(()) };
        let other = found.iter().find(|other| other.contract.id.key(0) != first.contract.id.key(0));
        if let Some(other) = other {
            self.diagnostics.push(Diagnostic {
                id: "mixed-products",
                level: Level::Error,
                message: format!("`{}` and `{}` lie in one folder", first.contract.id, other.contract.id),
                help: Some("a product's folder holds its major versions only".into()),
                location: Location { file: other.path.display().to_string(), ..Location::default() },
            });
        }
        Ok(())
    }
}

/// The major that a manifest's file name says: `product.v1.yaml`.
fn major_of_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("product.v")?.strip_suffix(".yaml")?.parse().ok()
}

/// The manifests of a product's folder, `product.yaml` first.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| Error::io(ErrorCode::InvalidManifest, "read the folder", folder, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let wanted = path.file_name().is_some_and(|name| name == "product.yaml") || major_of_name(&path).is_some();
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    files.sort_by_key(|path| (major_of_name(path).is_some(), path.clone()));
    Ok(files)
}

fn misplaced_major(path: &Path, contract: &DataProduct) -> Option<Diagnostic> {
    let told = major_of_name(path).filter(|told| *told != contract.version.major)?;
    Some(Diagnostic {
        id: "major-mismatch",
        level: Level::Error,
        message: format!(
            "the file's name says major version {told}, but the contract's version is {}",
            contract.version
        ),
        help: Some(format!("name it product.v{}.yaml, or product.yaml for the newest major", contract.version.major)),
        location: Location { file: path.display().to_string(), ..Location::default() },
    })
}

/// Reads a file, but not the rest of one that is far too large for a manifest.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let fail = |error| Error::io(ErrorCode::InvalidManifest, "read", path, error);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// Reads one manifest, or a product's folder with all its major versions. The nearest `domain.yaml` above decides its domain.
pub fn load_product(path: &Path) -> Result<Mesh> {
    let folder = path.is_dir();
    let path = if folder { path.join("product.yaml") } else { path.to_owned() };
    let mut mesh = Mesh::default();
    let domain = nearest_domain(&mut mesh, &path)?;
    let known = !mesh.has_errors();
    match path.parent().filter(|_| folder) {
        Some(folder) if folder.is_dir() && !manifests(folder)?.is_empty() => {
            mesh.read_majors(folder, domain.as_ref())?;
        }
        _ => mesh.read_product(&path, domain.as_ref())?,
    }
    if !known {
        // A product of a domain that cannot be read belongs to nobody.
        mesh.products.clear();
    }
    Ok(mesh)
}

pub(crate) fn nearest_domain(mesh: &mut Mesh, path: &Path) -> Result<Option<Name>> {
    let absolute =
        std::path::absolute(path).map_err(|error| Error::io(ErrorCode::InvalidManifest, "find", path, error))?;
    let mut inner = [None, None];
    for folder in absolute.ancestors().skip(1) {
        let file = folder.join("domain.yaml");
        if file.is_file() {
            let domain = mesh.read(&file, crate::domain::read)?;
            return Ok(domain.map(|domain| domain.name));
        }
        if folder.join("mesh.yaml").is_file() {
            // In a mesh the folder below `domains` names the domain.
            let [domain, domains] = inner;
            let below: Option<&Path> = domains;
            return Ok(below.filter(|below| below.ends_with("domains")).and(domain).and_then(folder_name));
        }
        inner = [inner[1], Some(folder)];
    }
    Ok(None)
}

fn folder_name(folder: &Path) -> Option<Name> {
    folder.file_name().and_then(|name| name.to_str()).and_then(|name| Name::new(name).ok())
}

/// Reads the `mesh.yaml` of a mesh directory alone.
///
/// # Errors
/// `invalid-manifest` where it has errors.
pub fn load_settings(root: &Path) -> Result<MeshSettings> {
    let file = root.join("mesh.yaml");
    let mut mesh = Mesh::default();
    mesh.read(&file, read::mesh)?.ok_or_else(|| {
        let why = mesh.diagnostics.first().map_or_else(String::new, |found| format!(": {}", found.message));
        Error::new(ErrorCode::InvalidManifest, format!("`{}` has errors{why}", file.display()))
            .with_help("mend them; `datamesh check` lists all problems")
    })
}

/// Reads a whole mesh directory. Problems in documents are collected; the error is a directory that cannot be read.
pub fn load_mesh(root: &Path) -> Result<Mesh> {
    let mut mesh = Mesh::default();
    let file = root.join("mesh.yaml");
    if !file.is_file() {
        return Err(Error::new(
            ErrorCode::NotFound,
            format!("`{}` is not a mesh: it has no mesh.yaml", root.display()),
        )
        .with_help("name a mesh directory with `--mesh`, or write a mesh.yaml with `name:`"));
    }
    mesh.settings = mesh.read(&file, read::mesh)?.map(|settings| (file, settings));
    mesh.name = mesh.settings.as_ref().map(|(_, settings)| settings.name.clone());
    crate::policies::read(&mut mesh, root, root, None)?;
    for folder in subfolders(&root.join("domains"))? {
        mesh.read_domain(root, &folder)?;
    }
    check_references(&mut mesh)?;
    crate::from::check(&mut mesh)?;
    crate::governance::check(&mut mesh)?;
    crate::policies::check(&mut mesh)?;
    Ok(mesh)
}

/// Reads one domain's folder or repository: `domain.yaml` and `products/<product>/`.
///
/// # Errors
/// `not-found` where the folder has no `domain.yaml`; folders that cannot be read.
pub fn load_domain(folder: &Path) -> Result<Mesh> {
    if !folder.join("domain.yaml").is_file() {
        let message = format!("`{}` is no domain: it has no domain.yaml", folder.display());
        return Err(Error::new(ErrorCode::NotFound, message)
            .with_help("name a mesh directory, a domain's folder or a product's folder"));
    }
    let mut mesh = Mesh::default();
    mesh.read_domain(folder, folder)?;
    // What other domains have is not known here.
    check_references(&mut mesh)?;
    Ok(mesh)
}

/// Checks references from product to product. What is not in this mesh is looked for when it is published.
fn check_references(mesh: &mut Mesh) -> Result<()> {
    // Of several major versions the newest one is meant.
    let mut newest: HashMap<&ProductId, &LoadedProduct> = HashMap::new();
    for product in &mesh.products {
        let known = newest.entry(&product.contract.id).or_insert(product);
        if known.contract.version < product.contract.version {
            *known = product;
        }
    }
    let mut found = Vec::new();
    for product in &mesh.products {
        let tables = || product.contract.tables.iter();
        let references = tables().flat_map(|table| table.references.iter().map(|reference| &reference.to));
        let compared = tables().flat_map(|table| &table.metrics).filter_map(|rule| rule.compare_to.as_ref());
        let named = references.chain(compared.map(|other| &other.table));
        let others: BTreeSet<&ProductId> = named.filter_map(|table| table.product.as_ref()).collect();
        for other in others.into_iter().filter_map(|id| newest.get(id)) {
            for (text, message, help) in read::check_across(&product.contract, &other.contract) {
                let (location, source) = locate(&product.path, &text)?;
                let diagnostic =
                    Diagnostic { id: "invalid-reference", level: Level::Error, message, help: Some(help), location };
                found.push((diagnostic, source));
            }
        }
    }
    for (diagnostic, source) in found {
        mesh.sources.insert(diagnostic.location.file.clone(), source);
        mesh.diagnostics.push(diagnostic);
    }
    Ok(())
}

fn subfolders(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let fail = |error| Error::io(ErrorCode::InvalidManifest, "read the folder", path, error);
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Finds the product that `wanted` means: `domain/product` or a bare product name that only one domain has, either with
/// `@major`; without, the newest major version.
pub fn find<'m>(mesh: &'m Mesh, wanted: &str) -> Result<&'m LoadedProduct> {
    let (wanted, major) = split_major(wanted)?;
    let matches: Vec<_> = match wanted.split_once('/') {
        Some((domain, product)) => {
            let same = |id: &ProductId| {
                (id.domain.as_str() == domain || id.domain.sql() == domain)
                    && (id.product.as_str() == product || id.product.sql() == product)
            };
            mesh.products.iter().filter(|loaded| same(&loaded.contract.id)).collect()
        }
        None => {
            let same = |name: &Name| name.as_str() == wanted || name.sql() == wanted;
            mesh.products.iter().filter(|loaded| same(&loaded.contract.id.product)).collect()
        }
    };
    let other_majors = !matches.is_empty();
    let is_wanted = |loaded: &&LoadedProduct| major.is_none_or(|major| loaded.contract.version.major == major);
    let matches: Vec<_> = matches.into_iter().filter(is_wanted).collect();
    let newest = matches.iter().max_by(|a, b| a.contract.version.cmp(&b.contract.version));
    match newest {
        None if other_majors => {
            let major = major.unwrap_or_default();
            Err(Error::new(ErrorCode::NotFound, format!("no manifest has major version {major} of `{wanted}`"))
                .with_help(format!("an older major that is kept up has its manifest in product.v{major}.yaml")))
        }
        None => {
            let names: Vec<String> = mesh.products.iter().map(|loaded| loaded.contract.id.to_string()).collect();
            let help = match crate::shape::closest(wanted, names.iter().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    format!("products here: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
                }
            };
            Err(Error::new(ErrorCode::NotFound, format!("no product `{wanted}` in this mesh")).with_help(help))
        }
        Some(newest) if matches.iter().all(|loaded| loaded.contract.id == newest.contract.id) => Ok(newest),
        Some(_) => {
            let names: Vec<_> = matches.iter().map(|loaded| loaded.contract.id.to_string()).collect();
            Err(Error::new(ErrorCode::InvalidArgument, format!("`{wanted}` could be any of {}", names.join(", ")))
                .with_help("write `domain/product`"))
        }
    }
}

/// Where the value `text` stands in a file, for problems that are found after it was read.
pub fn locate(path: &Path, text: &str) -> Result<(Location, String)> {
    fn search(node: &Node, text: &str) -> Option<crate::yaml::Span> {
        match &node.kind {
            crate::yaml::Kind::Scalar { text: found, .. } => (found.trim() == text).then_some(node.span),
            crate::yaml::Kind::Sequence(items) => items.iter().find_map(|item| search(item, text)),
            crate::yaml::Kind::Mapping(entries) => entries.iter().find_map(|(_, value)| search(value, text)),
        }
    }
    locate_by(path, |root| search(root, text))
}

/// Where what `find` finds stands in a file, with the file's text; the whole file where it finds nothing.
pub(crate) fn locate_by(
    path: &Path,
    find: impl FnOnce(&Node) -> Option<crate::yaml::Span>,
) -> Result<(Location, String)> {
    let file = path.display().to_string();
    let bytes = read_bounded(path)?;
    let whole = Location { file: file.clone(), ..Location::default() };
    let Ok(mut document) = Document::new(&file, &bytes) else { return Ok((whole, String::new())) };
    let span = document.parse().and_then(|root| find(&root));
    let location = span.map_or(whole, |span| document.location(span));
    Ok((location, String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned()))
}
