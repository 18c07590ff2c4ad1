//! `datamesh new`: a contract drafted from data.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use datamesh_app::explore::{ProfiledTable, profile_table};
use datamesh_app::ports::{BoundDatabase, BoundSource, Engine};
use datamesh_core::contract::{Constraints, CsvOptions, DatabaseRows, DatabaseSource, FileSource, SourceFormat};
use datamesh_core::infer::{TableDraft, draft_table, grouped};
use datamesh_core::profile::TableProfile;
use datamesh_core::secret::has_literal_password;
use datamesh_core::{Column, DataType, Error, ErrorCode, Name, ProductId, Result};
use datamesh_engine::DataEngine;
use datamesh_manifest::draft::{ProductDraft, SourceDraft, manifest, scalar};
use datamesh_manifest::load_mesh;
use serde_json::json;

use crate::cli::{InputFormat, ReportFormat};
use crate::commands::source_format;
use crate::init::write_new;
use crate::observer::Observer;
use crate::{home, output};

#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// domain/product
    pub(crate) product: String,
    /// A file, folder, glob or address (s3://…, https://…), a published table as domain.product.table, any Iceberg table by its
    /// metadata document or local folder, or a table of a database as ADDRESS#TABLE ('${env:CRM_URL}#public.customers',
    /// sqlite:crm.db#customers); may be repeated, once for each table
    #[arg(long, value_name = "FILE|TABLE", required = true)]
    pub(crate) from: Vec<String>,
    /// The table's name, in the order of --from (default: the file's name)
    #[arg(long, value_name = "TABLE")]
    pub(crate) name: Vec<String>,
    /// Format of the files (default: by file name)
    #[arg(long, value_enum)]
    pub(crate) input_format: Option<InputFormat>,
    /// Print the manifest and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReportFormat,
}

/// What `--from` and `profile` mean by a word.
pub(crate) enum Meant {
    /// Files.
    Source(Box<BoundSource>),
    /// A published table.
    Table(String),
    /// An Iceberg table that somebody else keeps: its metadata document, or its folder.
    Iceberg(String),
    /// A table of a database.
    Database(Box<BoundDatabase>),
}

/// A file where there is one, else a table where it is written like one.
pub(crate) fn meant(word: &str, format: Option<InputFormat>) -> Result<Meant> {
    let working =
        std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
    let parts: Vec<&str> = word.split('.').collect();
    let like_a_table = parts.len() == 3
        && parts.iter().all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        });
    if like_a_table && !working.join(word).exists() {
        return Ok(Meant::Table(word.to_owned()));
    }
    let is_address = ["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| word.starts_with(scheme))
        || (word.starts_with("${") && word.contains('#'));
    if is_address && !working.join(word).exists() {
        return Ok(Meant::Database(Box::new(database(word, working)?)));
    }
    let folder = working.join(word).join("metadata");
    let is_folder = !word.contains("://")
        && std::fs::read_dir(&folder).is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| is_metadata(&file.file_name().to_string_lossy())))
        });
    if format.is_none() && (is_metadata(word) || is_folder) {
        return Ok(Meant::Iceberg(word.to_owned()));
    }
    let format = format.map(source_format);
    // Delimited text by another name is told by its ending.
    let lower = word.to_ascii_lowercase();
    let text = [".tsv", ".txt", ".psv", ".tab", ".tsv.gz", ".txt.gz"].iter().any(|ending| lower.ends_with(ending));
    let format = format.or(text.then_some(SourceFormat::Csv));
    let spec = FileSource { path: word.to_owned(), format, csv: CsvOptions::default() };
    Ok(Meant::Source(Box::new(BoundSource { spec, paths: vec![word.to_owned()], folder: working, pulled: false })))
}

/// A table of a database: its address, `#` and its name.
fn database(word: &str, folder: PathBuf) -> Result<BoundDatabase> {
    // The address may have a password in it, so that no message quotes it.
    let refused = |why: &str, help: &str| Err(Error::new(ErrorCode::InvalidArgument, why).with_help(help));
    let (address, table) = word.rsplit_once('#').unwrap_or((word, ""));
    // A `#` in a password parts the address at the wrong place.
    let is_written = !address.starts_with("${");
    if has_literal_password(address) || has_literal_password(word) || (is_written && table.contains('@')) {
        return refused(
            "a password must not stand in a command or a manifest",
            "put the whole address into a variable and name that: '${env:CRM_URL}#public.customers'",
        );
    }
    if table.is_empty() {
        return refused(
            "an address alone does not say which table of the database is meant",
            "name it behind a `#`: sqlite:crm.db#customers, '${env:CRM_URL}#public.customers'",
        );
    }
    let rows = DatabaseRows::Table(table.to_owned());
    Ok(BoundDatabase { spec: DatabaseSource { database: address.to_owned(), rows, condition: None }, folder })
}

fn is_metadata(name: &str) -> bool {
    name.ends_with(".metadata.json") || name.ends_with(".metadata.json.gz")
}

/// The mesh to make the product in: as told, around the working folder, or none with `--print`.
fn root_of(told: Option<&Path>, print: bool) -> Result<Option<PathBuf>> {
    match home::find(told) {
        Ok(root) => Ok(Some(root)),
        Err(_) if print && told.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) async fn run(
    arguments: NewArguments,
    told: Option<&Path>,
    memory: usize,
    stop: impl Future<Output = ()>,
) -> Result<u8> {
    tokio::select! {
        biased;
        code = draft(arguments, told, memory) => code,
        () = stop => Err(Error::new(ErrorCode::Interrupted, "stopped; nothing was written")),
    }
}

async fn draft(arguments: NewArguments, told: Option<&Path>, memory: usize) -> Result<u8> {
    let id = ProductId::parse(&arguments.product)?;
    let root = root_of(told, arguments.print)?;
    let folder = root
        .as_ref()
        .map(|root| root.join("domains").join(id.domain.as_str()).join("products").join(id.product.as_str()));
    let path = folder.as_ref().map(|folder| folder.join("product.yaml"));
    if let Some(path) = path.as_ref().filter(|path| path.exists() && !arguments.print) {
        return Err(exists(path));
    }
    if arguments.name.len() > arguments.from.len() {
        return Err(Error::new(ErrorCode::InvalidArgument, "there are more `--name`s than `--from`s")
            .with_help("give one `--name` for each `--from`, in the same order"));
    }
    let engine = match &root {
        Some(root) => home::engine(root, memory)?,
        None => home::engine_without_tables()?,
    };
    let mut tables: Vec<SourceDraft> = Vec::new();
    let mut inputs = Vec::new();
    for (at, from) in arguments.from.iter().enumerate() {
        let name = arguments.name.get(at).map(String::as_str);
        let drafted = match meant(from, arguments.input_format)? {
            Meant::Source(source) => {
                home::read_location(told, from, "new").await?;
                from_source(&engine, *source, name, root.as_deref(), folder.as_deref()).await?
            }
            Meant::Iceberg(location) => {
                home::read_location(told, &location, "new").await?;
                from_iceberg(&engine, &location, name, root.as_deref(), folder.as_deref()).await?
            }
            Meant::Database(bound) => {
                home::read_location(told, from, "new").await?;
                from_database(&engine, &bound, name, root.as_deref(), folder.as_deref()).await?
            }
            Meant::Table(table) => {
                let root = root.as_deref().map_or_else(|| home::find(told), |root| Ok(root.to_owned()))?;
                let context = home::context(&root).await?;
                let governed = home::governed(&root, memory, &context).await?;
                let profiled = profile_table(&governed, &context, &table).await?;
                let version = &profiled.product.revision.contract.version;
                let input = format!("{}@^{}.{}", profiled.product.revision.contract.id, version.major, version.minor);
                if !inputs.contains(&input) {
                    inputs.push(input);
                }
                from_table(&table, &profiled, name)?
            }
        };
        if drafted.draft.columns.is_empty() {
            return Err(without_columns(from, &drafted.draft));
        }
        if tables.iter().any(|table| sql(&table.name) == sql(&drafted.name)) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("two tables would be named `{}`", drafted.name),
            )
            .with_help("name them with `--name`, in the order of `--from`"));
        }
        tables.push(drafted);
    }
    let domain_owner = root.as_ref().and_then(|root| owner_of(root, &id.domain));
    let new_domain = domain_owner.is_none();
    let product = ProductDraft { name: id.product.to_string(), domain_owner, inputs, tables };
    let text = manifest(&product);
    let (Some(root), Some(path)) = (root.filter(|_| !arguments.print), path) else {
        output::print(&text);
        return Ok(0);
    };
    let domain_file = root.join("domains").join(id.domain.as_str()).join("domain.yaml");
    let made_domain = new_domain
        && write_new(
            &domain_file,
            &format!("name: {}\nowner: TODO            # the accountable team\n", scalar(id.domain.as_str())),
        )?;
    if !write_new(&path, &text)? {
        return Err(exists(&path));
    }
    let shown = shorten(&path);
    match arguments.format {
        ReportFormat::Json => output::print_json(&json!({
            "product": id.to_string(),
            "manifest": shown,
            "createdDomain": made_domain,
            "tables": product.tables.iter().map(table_json).collect::<Vec<_>>(),
        }))?,
        ReportFormat::Text => {
            let mut text = format!("drafted {}\n", shown.display());
            for table in &product.tables {
                text.push_str(&table_text(table));
            }
            if made_domain {
                text.push_str(&format!("  created {}, which needs its owner too\n", shorten(&domain_file).display()));
            }
            // What is made of other products is run, with the tables beside it that have sources.
            let made = product.tables.iter().any(|table| table.transform.is_some());
            let last = if made { "run" } else { "publish" };
            text.push_str(&format!(
                "\nnext:\n  review it, and name the owner in place of TODO\n  datamesh check\n  datamesh explain {id}    what would be published, held back and refused, and why\n  datamesh {last} {id}\n"
            ));
            output::print(&text);
        }
    }
    Ok(0)
}

/// No contract is without columns.
fn without_columns(from: &str, draft: &TableDraft) -> Error {
    let help = match draft.left_out.as_slice() {
        [] => "name data that has columns: a header, an object or a schema".to_owned(),
        left_out => {
            let each = left_out.iter().map(|(name, why)| format!("`{name}`: {why}"));
            format!("left out: {}", each.collect::<Vec<_>>().join("; "))
        }
    };
    Error::new(ErrorCode::SourceUnreadable, format!("there is no column to draft in `{from}`")).with_help(help)
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorCode::InvalidArgument, format!("`{}` is there already", shorten(path).display()))
        .with_help("it is not overwritten; `--print` shows what a draft would say")
}

fn sql(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// The path as seen from the working folder.
fn shorten(path: &Path) -> PathBuf {
    let working = std::env::current_dir().and_then(|working| working.canonicalize());
    match working.ok().and_then(|working| path.strip_prefix(working).ok().map(Path::to_owned)) {
        Some(short) => short,
        None => path.to_owned(),
    }
}

fn owner_of(root: &Path, domain: &Name) -> Option<String> {
    let mesh = load_mesh(root).ok()?;
    mesh.domains.into_iter().find(|(_, found)| found.name.sql() == domain.sql()).map(|(_, found)| found.owner)
}

async fn from_source(
    engine: &DataEngine,
    source: BoundSource,
    name: Option<&str>,
    root: Option<&Path>,
    folder: Option<&Path>,
) -> Result<SourceDraft> {
    if source.spec.path == "-" {
        return Err(Error::new(ErrorCode::InvalidArgument, "a contract cannot be drafted from standard input")
            .with_help("save it to a file first"));
    }
    let written = source.spec.path.clone();
    let given = source.folder.join(&written);
    let name = match name {
        Some(name) => table_name(name)?,
        None => name_of(&given),
    };
    let format = source
        .spec
        .format
        .and_then(|format| SourceFormat::WORDS.iter().find(|(_, known)| *known == format).map(|(word, _)| *word));
    let remote = written.contains("://");
    let single = if remote { !written.ends_with('/') && !written.contains(['*', '?']) } else { given.is_file() };
    let profile = examine(engine, source, false).await?;
    let draft = draft_table(name.as_str(), &profile);
    let path = manifest_path(&given, &written, root, folder);
    let bytes = grouped(profile.bytes);
    let rows = if profile.rows == 1 { "1 row".to_owned() } else { format!("{} rows", grouped(profile.rows)) };
    Ok(SourceDraft {
        name: name.to_string(),
        about: format!("{rows}, {bytes} bytes, read whole"),
        path: Some(path),
        database_table: None,
        format: format.map(str::to_owned),
        transform: None,
        // One file is the whole table; of several, more will come.
        write: if single { "replace" } else { "append" },
        rows: profile.rows,
        draft,
    })
}

async fn from_iceberg(
    engine: &DataEngine,
    location: &str,
    name: Option<&str>,
    root: Option<&Path>,
    folder: Option<&Path>,
) -> Result<SourceDraft> {
    let working =
        std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
    let given = working.join(location);
    // A document lies in the table's folder `metadata`, and the folder is named like the table.
    let table = if is_metadata(location) { given.ancestors().nth(2).unwrap_or(&given) } else { given.as_path() };
    let name = match name {
        Some(name) => table_name(name)?,
        None => name_of(table),
    };
    let profile = engine.examine_iceberg(location, &working).await?;
    Ok(SourceDraft {
        name: name.to_string(),
        about: format!("an Iceberg table: {} rows, read whole", grouped(profile.rows)),
        path: Some(manifest_path(&given, location, root, folder)),
        database_table: None,
        format: Some("iceberg".to_owned()),
        transform: None,
        write: "replace",
        rows: profile.rows,
        draft: draft_table(name.as_str(), &profile),
    })
}

async fn from_database(
    engine: &DataEngine,
    bound: &BoundDatabase,
    name: Option<&str>,
    root: Option<&Path>,
    folder: Option<&Path>,
) -> Result<SourceDraft> {
    let DatabaseRows::Table(table) = &bound.spec.rows else {
        return Err(Error::new(ErrorCode::Internal, "a draft is made of a table"));
    };
    let name = match name {
        Some(name) => table_name(name)?,
        // A schema comes before the table's name.
        None => name_of(Path::new(table.rsplit('.').next().unwrap_or(table).trim_matches('"'))),
    };
    let (profile, columns) = examine_database(engine, bound).await?;
    let mut draft = draft_table(name.as_str(), &profile);
    for drafted in &mut draft.columns {
        let Some((found, evidence)) = columns.iter().find(|(column, _)| column.name == drafted.column.name) else {
            continue;
        };
        restore(&mut drafted.column, &found.data_type);
        if let Some((_, seen)) = drafted.type_evidence.split_once(" in the source") {
            drafted.type_evidence = format!("{evidence}{seen}");
        }
    }
    let address = &bound.spec.database;
    let path = match address.strip_prefix("sqlite:") {
        // What a reference stands for may be anywhere.
        Some(file) if !file.contains("${") => {
            let file = file.strip_prefix("//").unwrap_or(file);
            format!("sqlite:{}", manifest_path(&bound.folder.join(file), file, root, folder))
        }
        _ => address.clone(),
    };
    Ok(SourceDraft {
        name: name.to_string(),
        about: format!("{} rows, read whole", grouped(profile.rows)),
        path: Some(path),
        database_table: Some(table.clone()),
        format: None,
        transform: None,
        write: "replace",
        rows: profile.rows,
        draft,
    })
}

/// Documents and identifiers are texts to a profile: here they are again what the database has them as.
fn restore(column: &mut Column, found: &DataType) {
    match (&mut column.data_type, found) {
        (DataType::String, DataType::Json | DataType::Uuid) => {
            column.data_type = found.clone();
            column.constraints = Constraints::default();
        }
        (DataType::Array(item), DataType::Array(found)) => restore(item, &found.data_type),
        (DataType::Struct(fields), DataType::Struct(found)) => {
            for field in fields {
                if let Some(found) = found.iter().find(|found| found.name == field.name) {
                    restore(field, &found.data_type);
                }
            }
        }
        _ => {}
    }
}

/// Profiles a table of a database, with progress on a terminal.
pub(crate) async fn examine_database(
    engine: &DataEngine,
    bound: &BoundDatabase,
) -> Result<(TableProfile, Vec<(Column, String)>)> {
    let progress = Arc::new(Observer::new(crate::caller::stderr_is_terminal()));
    let examined = engine.examine_database(bound, progress.clone()).await?;
    progress.finish();
    Ok(examined)
}

/// Profiles files, with progress on a terminal.
pub(crate) async fn examine(engine: &DataEngine, source: BoundSource, told: bool) -> Result<TableProfile> {
    let progress = Arc::new(Observer::new(crate::caller::stderr_is_terminal()));
    let profile = engine.examine(source, told, progress.clone()).await?;
    progress.finish();
    Ok(profile)
}

fn from_table(table: &str, profiled: &ProfiledTable, name: Option<&str>) -> Result<SourceDraft> {
    let name = match name {
        Some(name) => table_name(name)?,
        None => profiled.table.name.clone(),
    };
    let mut draft = draft_table(name.as_str(), &profiled.profile);
    adopt(&mut draft, &profiled.table);
    let version = &profiled.product.revision.contract.version;
    let rows = profiled.profile.rows;
    Ok(SourceDraft {
        name: name.to_string(),
        about: format!("{table}, version {version}: {} rows", grouped(rows)),
        path: None,
        database_table: None,
        format: None,
        transform: Some(format!("SELECT * FROM {}", sql(table))),
        write: "replace",
        rows,
        draft,
    })
}

/// What the published contract says of a column is worth more than what its values look like.
fn adopt(draft: &mut TableDraft, table: &datamesh_core::Table) {
    for column in &mut draft.columns {
        let Some(known) = table.column(&column.column.name) else { continue };
        let (key, required) = (column.column.primary_key, column.column.required);
        column.column = datamesh_core::Column {
            primary_key: known.primary_key || (key && table.primary_key().is_empty()),
            required: known.required || required,
            unique: false,
            mask: None,
            declared: std::collections::BTreeMap::new(),
            ..known.clone()
        };
        column.type_evidence = format!("as {} has it; {}", table.name, column.type_evidence);
        if known.is_protected() {
            column.column.pii = true;
            column.suspicion = Some("protected where it comes from".to_owned());
        }
    }
}

fn table_name(name: &str) -> Result<Name> {
    Name::new(name).map_err(|why| Error::new(ErrorCode::InvalidArgument, why).with_help("choose another `--name`"))
}

/// A table's name from a path: its last part that is a name, without endings.
fn name_of(path: &Path) -> Name {
    let parts: Vec<String> = path
        .components()
        .rev()
        .filter_map(|part| Some(part.as_os_str().to_str()?.split('.').next().unwrap_or_default().to_owned()))
        .collect();
    let clean = |text: &String| {
        let word: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        let word = word.trim_matches('_').to_owned();
        let word = if word.starts_with(|c: char| c.is_ascii_digit()) { format!("t_{word}") } else { word };
        Name::new(&word.chars().take(100).collect::<String>()).ok()
    };
    let plain = parts.iter().filter(|part| !part.contains(['*', '?', '['])).find_map(clean);
    plain.or_else(|| Name::new("rows").ok()).unwrap_or_else(|| unreachable!("`rows` is a name"))
}

/// How a manifest in `folder` names a path: relative within the mesh, so that the mesh can be moved; else absolute.
fn manifest_path(given: &Path, written: &str, root: Option<&Path>, folder: Option<&Path>) -> String {
    if written.contains("://") {
        return written.to_owned();
    }
    let absolute = match (given.parent().and_then(|parent| parent.canonicalize().ok()), given.file_name()) {
        (Some(parent), Some(name)) if name != ".." && name != "." => parent.join(name),
        _ => given.canonicalize().unwrap_or_else(|_| given.to_owned()),
    };
    let (Some(root), Some(folder)) = (root, folder) else { return written.to_owned() };
    if !absolute.starts_with(root) {
        return absolute.display().to_string();
    }
    let shared = absolute.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().count() - shared;
    let mut path = PathBuf::new();
    (0..up).for_each(|_| path.push(".."));
    absolute.components().skip(shared).for_each(|part| path.push(part));
    path.display().to_string()
}

fn table_text(table: &SourceDraft) -> String {
    let draft = &table.draft;
    let key: Vec<&str> = draft
        .columns
        .iter()
        .filter(|column| column.column.primary_key)
        .map(|column| column.column.name.as_str())
        .collect();
    let personal: Vec<&str> = draft
        .columns
        .iter()
        .filter(|column| column.column.is_protected())
        .map(|column| column.column.name.as_str())
        .collect();
    let mut text = format!("  {}: {} columns from {} rows", table.name, draft.columns.len(), grouped(table.rows));
    text.push_str(&if key.is_empty() { "; no single key".to_owned() } else { format!("; key {}", key.join(", ")) });
    text.push('\n');
    if !personal.is_empty() {
        text.push_str(&format!("    suspected personal data: {}\n", personal.join(", ")));
    }
    if draft.misfits > 0 {
        text.push_str(&format!(
            "    up to {} rows do not fit the draft; its comments name them\n",
            grouped(draft.misfits)
        ));
    }
    if draft.csv.as_ref().is_some_and(|options| !options.header) {
        text.push_str("    read without a header; the draft says how to change that\n");
    }
    for (name, why) in &draft.left_out {
        text.push_str(&format!("    left out `{name}`: {why}\n"));
    }
    text
}

fn table_json(table: &SourceDraft) -> serde_json::Value {
    let columns = table.draft.columns.iter().map(|draft| {
        json!({
            "name": draft.column.name,
            "type": draft.column.data_type.to_string(),
            "primaryKey": draft.column.primary_key,
            "required": draft.column.required,
            "pii": draft.column.is_protected(),
        })
    });
    json!({
        "table": table.name,
        "rows": table.rows,
        "misfits": table.draft.misfits,
        "leftOut": table.draft.left_out.iter().map(|(name, why)| json!({ "column": name, "because": why })).collect::<Vec<_>>(),
        "columns": columns.collect::<Vec<_>>(),
    })
}
