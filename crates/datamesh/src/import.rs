//! `datamesh import`: documents of the field's standards as manifests.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_manifest::standards::{Imported, Standard, dbt, import};

use crate::init::write_new;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The standard that the document is of
    #[arg(value_enum)]
    pub(crate) standard: ImportStandard,
    /// The document; `-` is standard input
    pub(crate) file: PathBuf,
    /// dbt: a model by name or unique id; may be repeated (default: all models of the project that are built)
    #[arg(long, value_name = "MODEL")]
    pub(crate) select: Vec<String>,
    /// Write the manifest to a file that is not there yet (default: print it)
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What can be imported.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ImportStandard {
    /// Open Data Contract Standard 3.0 to 3.2
    Odcs,
    /// Data Contract Specification up to 1.2.1
    Datacontract,
    /// Open Data Product Standard of Bitol, 1.0 and 1.1
    Odps,
    /// A dbt project: its target/manifest.json
    Dbt,
}

impl ImportStandard {
    /// The standard; `None` is dbt, whose project is no document of one.
    fn standard(self) -> Option<Standard> {
        match self {
            Self::Odcs => Some(Standard::Odcs),
            Self::Datacontract => Some(Standard::DataContract),
            Self::Odps => Some(Standard::Odps),
            Self::Dbt => None,
        }
    }
}

/// Largest document that is read at all, a little more than the reader takes.
const MOST_BYTES: u64 = 8 << 20;

pub(crate) fn run(arguments: &ImportArguments) -> Result<u8> {
    let file = &arguments.file;
    let standard = arguments.standard.standard();
    if standard.is_some() && !arguments.select.is_empty() {
        return Err(Error::new(ErrorCode::InvalidArgument, "only a dbt project has models to select")
            .with_help("leave `--select` out"));
    }
    let most = if standard.is_some() { MOST_BYTES } else { dbt::MAX_BYTES as u64 + 1 };
    let fail = |error| Error::io(ErrorCode::NotFound, "read", file, error);
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(fail)?;
    } else {
        std::fs::File::open(file).map_err(fail)?.take(most).read_to_end(&mut bytes).map_err(fail)?;
    }
    let name = file.display().to_string();
    let imported = match standard {
        Some(standard) => import(standard, &name, &bytes).map(|imported| (imported, Vec::new())),
        None => dbt::import(&name, &bytes, &arguments.select)
            .map(|found| (Imported { manifest: found.manifest, open: found.open }, found.remarks)),
    };
    let (imported, remarks) = match imported {
        Ok(imported) => imported,
        Err(diagnostics) => {
            let sources = BTreeMap::from([(name.clone(), String::from_utf8_lossy(&bytes).into_owned())]);
            output::print_problems(&diagnostics, &sources);
            return Err(Error::new(ErrorCode::InvalidManifest, format!("`{name}` cannot be imported"))
                .with_help("mend what is told above; nothing was written"));
        }
    };
    let text = imported.manifest.to_yaml();
    match &arguments.out {
        None => output::print(&text),
        Some(out) => {
            if !write_new(out, &text)? {
                return Err(Error::new(ErrorCode::InvalidArgument, format!("`{}` is there already", out.display()))
                    .with_help("it is not overwritten; name another file, or none to print the manifest"));
            }
        }
    }
    output::print_problems(&remarks, &BTreeMap::new());
    if !imported.open.is_empty() {
        let shown = arguments.out.as_ref().map_or("product.yaml".to_owned(), |out| out.display().to_string());
        let mut open = imported.open;
        for diagnostic in &mut open {
            diagnostic.location.file.clone_from(&shown);
        }
        // Standard output is the manifest's. A closed standard error takes nothing away.
        crate::caller::tell("`datamesh check` will refuse the manifest until this is filled in:\n\n");
        output::print_problems(&open, &BTreeMap::from([(shown, text)]));
    }
    Ok(0)
}
