//! `datamesh export`: manifests as documents of the field's standards, and as Terraform.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_manifest::standards::{Tree, odcs, odps, tree};
use datamesh_manifest::{Mesh, load_mesh, load_product, mesh};

use crate::init::write_new;
use crate::terraform::{self, TerraformArguments};
use crate::{home, output};

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The standard that the document shall be of, or terraform
    #[arg(value_enum)]
    pub(crate) standard: ExportStandard,
    /// domain/product, or the path of a manifest or its folder; one, or with terraform any number (default: the whole mesh)
    #[arg(value_name = "PRODUCT")]
    pub(crate) products: Vec<String>,
    /// The standard's version (default: the oldest that loses nothing, or the one that the manifest was imported from)
    #[arg(long, value_name = "VERSION")]
    pub(crate) standard_version: Option<String>,
    /// Write to a file that is not there yet, JSON where its name ends in .json; with terraform a folder (default: print it)
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) terraform: TerraformArguments,
}

/// What can be exported.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportStandard {
    /// Open Data Contract Standard: 3.0.2, 3.1.0, 3.2.0
    Odcs,
    /// Open Data Product Standard of Bitol: 1.0.0, 1.1.0
    Odps,
    /// Terraform, which OpenTofu reads too: databases, tables and access in AWS Glue and Lake Formation
    Terraform,
}

pub(crate) async fn run(arguments: &ExportArguments, told: Option<&Path>) -> Result<u8> {
    let read = || {
        if let Some(option) = arguments.terraform.given() {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("`{option}` is for terraform alone"))
                .with_help("leave it out, or write `datamesh export terraform`"));
        }
        manifest(one_product(&arguments.products)?, told)
    };
    let document = match arguments.standard {
        ExportStandard::Terraform => {
            if arguments.standard_version.is_some() {
                return Err(Error::new(ErrorCode::InvalidArgument, "terraform is no standard that has versions")
                    .with_help("leave `--standard-version` out"));
            }
            let out = arguments.out.as_deref();
            return terraform::run(&arguments.products, &arguments.terraform, out, told).await;
        }
        ExportStandard::Odcs => {
            let manifest = read()?;
            let version = match &arguments.standard_version {
                Some(text) => Some(odcs::Version::parse(text).ok_or_else(|| {
                    let known: Vec<String> = odcs::Version::ALL.iter().map(ToString::to_string).collect();
                    Error::new(
                        ErrorCode::InvalidArgument,
                        format!("`{text}` is no version of ODCS that is written here"),
                    )
                    .with_help(format!("one of: {}", known.join(", ")))
                })?),
                None => None,
            };
            odcs::export(&manifest, version).map_err(|why| {
                Error::new(ErrorCode::InvalidArgument, why)
                    .with_help("leave `--standard-version` out, or take away what the standard cannot say")
            })?
        }
        ExportStandard::Odps => {
            let manifest = read()?;
            let document = odps::export(&manifest, None);
            let written = odps::edition(&document).as_str().trim_start_matches('v');
            if let Some(text) =
                arguments.standard_version.as_deref().filter(|text| text.trim_start_matches('v') != written)
            {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    format!("`{text}` is not the version that it would be"),
                )
                .with_help(format!(
                    "it is written as ODPS {written}, the oldest that loses nothing; leave `--standard-version` out"
                )));
            }
            document
        }
    };
    let is_json = |out: &PathBuf| out.extension().is_some_and(|extension| extension == "json");
    let text = if arguments.out.as_ref().is_some_and(is_json) { document.to_json() } else { document.to_yaml() };
    match &arguments.out {
        None => output::print(&text),
        Some(out) => {
            if !write_new(out, &text)? {
                return Err(Error::new(ErrorCode::InvalidArgument, format!("`{}` is there already", out.display()))
                    .with_help("it is not overwritten; name another file, or none to print the document"));
            }
        }
    }
    Ok(0)
}

/// The product, where there is exactly one.
fn one_product(products: &[String]) -> Result<&str> {
    match products {
        [product] => Ok(product),
        [] => Err(Error::new(ErrorCode::InvalidArgument, "no product is named")
            .with_help("write `domain/product`, or the path of a manifest or its folder")),
        several => Err(Error::new(ErrorCode::InvalidArgument, format!("{} products are named", several.len()))
            .with_help("a document is of one product: export them one by one")),
    }
}

/// The tree of the manifest that `wanted` means. It must be one that `check` accepts; the domain is told in it.
fn manifest(wanted: &str, told: Option<&Path>) -> Result<Tree> {
    let path = Path::new(wanted);
    let loaded: Mesh = if path.exists() { load_product(path)? } else { load_mesh(&home::find(told)?)? };
    let found = if path.exists() {
        loaded.products.first().ok_or_else(|| {
            Error::new(ErrorCode::InvalidManifest, format!("`{wanted}` has errors"))
                .with_help("mend what is told above; `datamesh check` tells more")
        })
    } else {
        mesh::find(&loaded, wanted)
    };
    let product = match found {
        Ok(product) => product,
        Err(error) => {
            output::print_problems(&loaded.diagnostics, &loaded.sources);
            return Err(error);
        }
    };
    let bytes = std::fs::read(&product.path)
        .map_err(|error| Error::io(ErrorCode::InvalidManifest, "read", &product.path, error))?;
    let (_, _, mut tree) = tree::read(&product.path.display().to_string(), &bytes).map_err(|diagnostics| {
        let why = diagnostics.first().map(ToString::to_string).unwrap_or_default();
        Error::new(ErrorCode::InvalidManifest, why)
    })?;
    // A folder may tell the domain; a document of its own must tell it itself.
    if let Tree::Map(root) = &mut tree
        && let Some(Tree::Map(data_product)) = root.get_mut("dataProduct")
        && !data_product.contains("domain")
    {
        data_product.put("domain", product.contract.id.domain.as_str());
    }
    Ok(tree)
}
