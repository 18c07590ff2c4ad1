//! `datamesh init`: a new mesh.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use datamesh_core::{Error, ErrorCode, Name, Result};
use datamesh_manifest::draft::scalar;
use serde_json::json;

use crate::cli::ReportFormat;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// The mesh's folder (default: that of --mesh, else the working folder)
    pub(crate) dir: Option<PathBuf>,
    /// The mesh's name (default: the folder's)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The first domain
    #[arg(long, default_value = "main")]
    pub(crate) domain: String,
    /// The team that owns the first domain (default: DOMAIN-team)
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

pub(crate) fn run(arguments: &InitArguments, told: Option<&Path>) -> Result<u8> {
    let dir = arguments.dir.as_deref().or(told).unwrap_or(Path::new(".")).to_owned();
    let domain = Name::new(&arguments.domain).map_err(|why| {
        Error::new(ErrorCode::InvalidArgument, why).with_help("name the domain with letters, digits, `-` and `_`")
    })?;
    let owner = arguments.owner.clone().unwrap_or_else(|| format!("{domain}-team"));
    std::fs::create_dir_all(&dir).map_err(|error| Error::io(ErrorCode::WriteFailed, "make the folder", &dir, error))?;
    let named = dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    let name = arguments.name.clone().or(named).unwrap_or_else(|| "mesh".to_owned());
    let files = [
        ("mesh.yaml".to_owned(), format!("name: {}\nowner: {}\n", scalar(&name), scalar(&owner))),
        (
            format!("domains/{domain}/domain.yaml"),
            format!(
                "name: {}\nowner: {}\n# purpose: what the domain is there for\n# responsibilities:\n#   - what others can rely on\n",
                scalar(domain.as_str()),
                scalar(&owner)
            ),
        ),
        (
            ".gitignore".to_owned(),
            "# What datamesh writes: the registry and the tables.\n/.datamesh/\n/warehouse/\n".to_owned(),
        ),
        ("README.md".to_owned(), readme(&name, &domain)),
    ];
    let (mut made, mut kept) = (Vec::new(), Vec::new());
    for (path, text) in files {
        if write_new(&dir.join(&path), &text)? { made.push(path) } else { kept.push(path) }
    }
    match arguments.format {
        ReportFormat::Json => output::print_json(&json!({ "mesh": dir, "name": name, "created": made, "kept": kept }))?,
        ReportFormat::Text => {
            let mut text = if made.is_empty() {
                format!("`{}` is a mesh already; nothing was changed\n", dir.display())
            } else {
                format!("mesh `{name}` in {}\n", dir.display())
            };
            for path in &made {
                text.push_str(&format!("  created {path}\n"));
            }
            for path in kept.iter().filter(|_| !made.is_empty()) {
                text.push_str(&format!("  kept    {path}, which was there\n"));
            }
            if kept.iter().any(|path| path == ".gitignore") && !made.is_empty() {
                text.push_str("  add the lines `/.datamesh/` and `/warehouse/` to your .gitignore\n");
            }
            text.push_str("\nnext:\n");
            if dir != Path::new(".") {
                text.push_str(&format!("  cd {}\n", dir.display()));
            }
            text.push_str(&format!("  datamesh new {domain}/PRODUCT --from FILE    draft a contract from data\n"));
            text.push_str("  datamesh check                             see what is missing\n");
            output::print(&text);
        }
    }
    Ok(0)
}

fn readme(name: &str, domain: &Name) -> String {
    format!(
        "# {name}\n\nA data mesh: domains publish data products, each with a contract that every row is judged by.\n\n\
         ```\nmesh.yaml                                  the mesh\n\
         domains/<domain>/domain.yaml               a domain and its owner\n\
         domains/<domain>/products/<product>/       a product: product.yaml is its contract\n\
         .datamesh/, warehouse/                     registry and tables; written by datamesh, not kept in git\n```\n\n\
         ```sh\ndatamesh new {domain}/orders --from orders.csv   # draft a contract from data\n\
         datamesh check                                 # every problem at once\n\
         datamesh explain {domain}/orders                 # what would be published, held back, refused, and why\n\
         datamesh publish {domain}/orders\n\
         datamesh query \"SELECT count(*) FROM {sql}.orders.orders\"\n```\n",
        sql = domain.sql()
    )
}

/// Writes a file that is not there yet; `false` where it is.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<bool> {
    let fail = |error| Error::io(ErrorCode::WriteFailed, "write", path, error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Error::io(ErrorCode::WriteFailed, "make the folder", folder, error))?;
    }
    // `create_new` decides and makes in one step, so nothing that appears in between is lost.
    match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true).map_err(fail),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(fail(error)),
    }
}
