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
        Some(folder) => write(folder, &rendered.files)?,
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

/// Writes the files into a folder: all of them, or none where one is there that says something else.
fn write(folder: &Path, files: &[TerraformFile]) -> Result<()> {
    let other = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{}`", folder.join(name).display())).collect();
        Error::new(ErrorCode::InvalidArgument, format!("{} would be another than is there already", names.join(", ")))
            .with_help("nothing is overwritten: remove what is there, or name another folder and compare")
    };
    let (mut kept, mut differing) = (BTreeSet::new(), Vec::new());
    for file in files {
        let path = folder.join(&file.name);
        match std::fs::read(&path) {
            Ok(there) if there == file.text.as_bytes() => {
                kept.insert(file.name.as_str());
            }
            Ok(_) => differing.push(file.name.as_str()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(ErrorCode::WriteFailed, "read", &path, error)),
        }
    }
    if !differing.is_empty() {
        return Err(other(&differing));
    }
    let mut text = String::new();
    for file in files {
        let path = folder.join(&file.name);
        if kept.contains(file.name.as_str()) {
            text.push_str(&format!("kept    {}, which says the same\n", path.display()));
        } else if write_new(&path, &file.text)? {
            text.push_str(&format!("created {}\n", path.display()));
        } else {
            return Err(other(&[file.name.as_str()]));
        }
    }
    output::print(&text);
    Ok(())
}
