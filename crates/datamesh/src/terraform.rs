//! `datamesh export terraform`: products as a module of Terraform.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use datamesh_core::access::AttributeType;
use datamesh_core::contract::DataProduct;
use datamesh_core::decision::Action;
use datamesh_core::{Error, ErrorCode, ProductKey, Result};
use datamesh_manifest::{Mesh, load_mesh, load_product, mesh::find};
use datamesh_provision::terraform::generated::{Standing, stamped, standing};
use datamesh_provision::terraform::{
    Rendered, Style, TerraformFile, TerraformOptions, TerraformTarget, Unpublished, render,
};
use datamesh_registry::Location;
use serde_json::json;

use crate::init::write_new;
use crate::{home, output};

#[derive(Debug, Args)]
pub(crate) struct TerraformArguments {
    /// What the infrastructure is made of: glue
    #[arg(long, value_parser = target, help_heading = "Terraform")]
    target: Option<TerraformTarget>,
    /// How much is written: standard (a whole root module) or article (one database a domain, and bare tables)
    #[arg(long, value_parser = style, help_heading = "Terraform")]
    style: Option<Style>,
    /// Let Glue make an empty Iceberg table for each that was never published
    #[arg(long, help_heading = "Terraform")]
    empty_tables: bool,
    /// What every database's name begins with
    #[arg(long, help_heading = "Terraform")]
    prefix: Option<String>,
    /// The region that the module suggests
    #[arg(long, help_heading = "Terraform")]
    region: Option<String>,
    /// Overwrite files in --out that somebody else wrote or changed
    #[arg(long, help_heading = "Terraform", requires = "out")]
    force: bool,
}

impl TerraformArguments {
    /// An option that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--target", self.target.is_some()),
            ("--style", self.style.is_some()),
            ("--empty-tables", self.empty_tables),
            ("--prefix", self.prefix.is_some()),
            ("--region", self.region.is_some()),
            ("--force", self.force),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }
}

fn target(text: &str) -> Result<TerraformTarget, String> {
    let found = TerraformTarget::ALL.into_iter().find(|target| target.as_str() == text);
    found.ok_or_else(|| format!("there is {}", TerraformTarget::ALL.map(TerraformTarget::as_str).join(", ")))
}

fn style(text: &str) -> Result<Style, String> {
    let found = Style::ALL.into_iter().find(|style| style.as_str() == text);
    found.ok_or_else(|| format!("there are {}", Style::ALL.map(Style::as_str).join(", ")))
}

pub(crate) async fn run(
    wanted: &[String],
    arguments: &TerraformArguments,
    out: Option<&Path>,
    told: Option<&Path>,
) -> Result<u8> {
    let style = arguments.style.unwrap_or_default();
    if style == Style::Article && arguments.empty_tables {
        return Err(Error::new(ErrorCode::InvalidArgument, "the style `article` says nothing of publications")
            .with_help("leave `--empty-tables` out, or write `--style standard`"));
    }
    let chosen = choose(wanted, told)?;
    let mut options = TerraformOptions {
        target: arguments.target.unwrap_or_default(),
        style,
        unpublished: if arguments.empty_tables { Unpublished::Empty } else { Unpublished::Declared },
        region: arguments.region.clone(),
        database_prefix: arguments.prefix.clone().unwrap_or_default(),
        attributes: chosen.attributes,
        ..TerraformOptions::default()
    };
    let mut warnings = Vec::new();
    if let Some(root) = &chosen.root {
        options.warehouse = Some(home::warehouse(root)?);
        match applied(root).await? {
            Some((mesh, pointers)) => (options.mesh, options.pointers) = (Some(mesh), pointers),
            None if style == Style::Standard => warnings.push(
                "this mesh has no registry yet, so that nothing carries its marker: export again after the first `datamesh apply`"
                    .to_owned(),
            ),
            None => {}
        }
    }
    let rendered = render(&chosen.contracts, &options)?;
    warnings.extend(rendered.warnings.iter().cloned());
    warn(&warnings);
    match out {
        None => output::print(&printed(&rendered)),
        Some(folder) => write(folder, &rendered, style, arguments.force)?,
    }
    Ok(0)
}

/// What is exported, and the mesh that it belongs to.
struct Chosen {
    root: Option<PathBuf>,
    contracts: Vec<DataProduct>,
    attributes: BTreeMap<String, AttributeType>,
}

fn choose(wanted: &[String], told: Option<&Path>) -> Result<Chosen> {
    let paths: Vec<&Path> = wanted.iter().map(Path::new).filter(|path| path.exists()).collect();
    let by_path = !wanted.is_empty() && paths.len() == wanted.len();
    let root = if by_path { around(&paths, told)? } else { Some(home::find(told)?) };
    let mesh = match &root {
        Some(root) => load_mesh(root)?,
        None => Mesh::default(),
    };
    let mut contracts: BTreeMap<ProductKey, DataProduct> = BTreeMap::new();
    if wanted.is_empty() {
        if mesh.has_errors() {
            output::print_problems(&mesh.diagnostics, &mesh.sources);
            return Err(Error::new(ErrorCode::InvalidManifest, "nothing is exported: there are manifests with errors")
                .with_help("mend them; `datamesh check` lists all problems"));
        }
        let living = mesh.products.iter().map(|loaded| &loaded.contract).filter(|c| c.preference().is_some());
        contracts.extend(living.map(|contract| (contract.key(), contract.clone())));
        if contracts.is_empty() {
            return Err(Error::new(ErrorCode::NotFound, "there is no product to export in this mesh")
                .with_help("`datamesh new` drafts one from data"));
        }
    }
    for wanted in wanted {
        contracts.extend(named(&mesh, wanted)?.into_iter().map(|contract| (contract.key(), contract)));
    }
    Ok(Chosen { root, contracts: contracts.into_values().collect(), attributes: mesh.governance().attributes })
}

/// The mesh that manifests lie in; a manifest may lie outside any.
fn around(paths: &[&Path], told: Option<&Path>) -> Result<Option<PathBuf>> {
    if told.is_some() {
        return home::find(told).map(Some);
    }
    let mut roots = BTreeSet::new();
    for path in paths {
        let absolute = path.canonicalize().map_err(|error| Error::io(ErrorCode::NotFound, "find", path, error))?;
        roots.insert(absolute.ancestors().find(|folder| folder.join("mesh.yaml").is_file()).map(Path::to_owned));
    }
    if roots.len() > 1 {
        return Err(Error::new(ErrorCode::InvalidArgument, "the manifests do not lie in one mesh")
            .with_help("export those of each mesh for themselves, or name the mesh with `--mesh`"));
    }
    match roots.into_iter().next().flatten() {
        Some(root) => home::find(Some(&root)).map(Some),
        None => Ok(None),
    }
}

/// The contracts that `wanted` means: of a name the newest major version, of a folder all that it holds.
fn named(mesh: &Mesh, wanted: &str) -> Result<Vec<DataProduct>> {
    let path = Path::new(wanted);
    if !path.exists() {
        return match find(mesh, wanted) {
            Ok(loaded) => Ok(vec![loaded.contract.clone()]),
            Err(error) => {
                output::print_problems(&mesh.diagnostics, &mesh.sources);
                Err(error)
            }
        };
    }
    let loaded = load_product(path)?;
    if loaded.has_errors() || loaded.products.is_empty() {
        output::print_problems(&loaded.diagnostics, &loaded.sources);
        return Err(Error::new(ErrorCode::InvalidManifest, format!("`{wanted}` has errors"))
            .with_help("mend what is told above; `datamesh check` tells more"));
    }
    Ok(loaded.products.into_iter().map(|loaded| loaded.contract).collect())
}

/// The mesh's id and where its published tables are; `None` without a registry, which is not made for this.
async fn applied(root: &Path) -> Result<Option<(String, BTreeMap<(ProductKey, String), String>)>> {
    if let Location::Sqlite(file) = crate::registry::location(root)?
        && !file.exists()
    {
        return Ok(None);
    }
    let context = home::context(root).await?;
    context.authorize_mesh(Action::Describe, json!({ "operation": "export terraform" })).await?;
    let catalog = context.discover(context.registry.catalog().await?).await?;
    let pointers = catalog.into_iter().flat_map(|product| {
        let key = product.key;
        product.tables.into_iter().map(move |pointer| ((key.clone(), pointer.table), pointer.metadata_location))
    });
    Ok(Some((context.registry.mesh_identity().await?.id.to_string(), pointers.collect())))
}

fn warn(warnings: &[String]) {
    let word = output::paint("warning:", "1;33", output::colours(crate::caller::stderr_is_terminal()));
    let text: String = warnings.iter().map(|warning| format!("{word} {}\n", output::printable(warning))).collect();
    crate::caller::tell(&text);
}

/// The files in one text; of several each is headed by its name.
fn printed(rendered: &Rendered) -> String {
    match rendered.files.as_slice() {
        [file] => file.text.clone(),
        files => {
            let parts: Vec<String> = files.iter().map(|file| format!("# {}\n\n{}", file.name, file.text)).collect();
            parts.join("\n")
        }
    }
}

/// What becomes of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Created,
    Updated,
    Kept,
}

/// Writes the files into a folder: all of them, or none where one is there that was not exported, or changed since.
fn write(folder: &Path, rendered: &Rendered, style: Style, force: bool) -> Result<()> {
    let mut files = Vec::new();
    let mut refused = Vec::new();
    for file in &rendered.files {
        // The article has nothing but its resources.
        let text = if style == Style::Article { file.text.clone() } else { stamped(&file.text) };
        let path = folder.join(&file.name);
        let fate = match std::fs::read(&path) {
            Ok(there) if there == text.as_bytes() => Fate::Kept,
            Ok(there) => {
                let why = match std::str::from_utf8(&there).map_or(Standing::Foreign, standing) {
                    Standing::Exported => None,
                    Standing::Edited => Some("was changed by hand"),
                    Standing::Foreign => Some("was not written by this command"),
                };
                refused.extend(why.filter(|_| !force).map(|why| format!("`{}` {why}", path.display())));
                Fate::Updated
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Fate::Created,
            Err(error) => return Err(Error::io(ErrorCode::WriteFailed, "read", &path, error)),
        };
        files.push((path, text, fate));
    }
    if !refused.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, format!("nothing was written: {}", refused.join(", ")))
            .with_help("name another folder and compare, or overwrite with `--force`"));
    }
    let stale = stale(folder, &rendered.files)?;
    let mut told = String::new();
    for (path, text, fate) in &files {
        let word = match fate {
            Fate::Created if !write_new(path, text)? => {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!("somebody else wrote `{}` meanwhile", path.display()),
                )
                .with_help("run the same command again"));
            }
            Fate::Created => "created",
            Fate::Updated => {
                replace(path, text)?;
                "updated"
            }
            Fate::Kept => "kept   ",
        };
        told.push_str(&format!("{word} {}\n", path.display()));
    }
    output::print(&told);
    warn(&stale);
    Ok(())
}

/// Files that were exported before and are no part of the module any more: what they declare would stay.
fn stale(folder: &Path, files: &[TerraformFile]) -> Result<Vec<String>> {
    let fail = |error| Error::io(ErrorCode::WriteFailed, "list", folder, error);
    let listed = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(fail)?,
    };
    let mut stale = BTreeSet::new();
    for entry in listed {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.ends_with(".tf") || files.iter().any(|file| file.name == name) {
            continue;
        }
        // What cannot be read was not exported.
        if std::fs::read_to_string(&path).is_ok_and(|text| standing(&text) != Standing::Foreign) {
            stale.insert(format!(
                "`{}` was exported before and is no part of this module: remove it if its product is gone",
                path.display()
            ));
        }
    }
    Ok(stale.into_iter().collect())
}

/// Puts a file in the place of another, whole.
fn replace(path: &Path, text: &str) -> Result<()> {
    let fail = |error| Error::io(ErrorCode::WriteFailed, "write", path, error);
    let staged = path.with_extension("tf.new");
    std::fs::write(&staged, text).map_err(fail)?;
    std::fs::rename(&staged, path).map_err(fail)
}
