//! Finding the mesh, and wiring the parts for it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datamesh_app::govern::RulesCache;
use datamesh_app::ports::{Clock, Context, Ids};
use datamesh_app::signing::SigningKey;
use datamesh_core::decision::{Action, Principal};
use datamesh_core::ports::Registry;
use datamesh_core::secret::Redactor;
use datamesh_core::{Error, ErrorCode, Result};
use datamesh_engine::{DataEngine, EngineOptions};
use datamesh_iceberg::Storage;
use datamesh_iceberg::local::to_url;
use datamesh_iceberg::storage::{shown, split};
use datamesh_registry::Location;
use datamesh_registry::SqlRegistry;
use serde_json::json;
use uuid::Uuid;

use crate::caller;

/// Rows in a batch.
const BATCH_SIZE: usize = 8192;

/// The mesh directory: as told, or the nearest one upwards from the working folder.
///
/// # Errors
/// `not-found` where there is none.
pub fn find(told: Option<&Path>) -> Result<PathBuf> {
    let working =
        std::env::current_dir().map_err(|error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error))?;
    let root = match told {
        Some(told) => working.join(told),
        None => working.ancestors().find(|folder| folder.join("mesh.yaml").is_file()).map(Path::to_owned).ok_or_else(
            || {
                Error::new(ErrorCode::NotFound, "there is no mesh here: no folder upwards has a mesh.yaml")
                    .with_help("name a mesh directory with `--mesh`, or write a mesh.yaml with `name:`")
            },
        )?,
    };
    if !root.join("mesh.yaml").is_file() {
        return Err(Error::new(
            ErrorCode::NotFound,
            format!("`{}` is not a mesh: it has no mesh.yaml", root.display()),
        )
        .with_help("name a mesh directory with `--mesh`, or write a mesh.yaml with `name:`"));
    }
    let root = root.canonicalize().map_err(|error| Error::io(ErrorCode::NotFound, "find", &root, error))?;
    match root.to_str() {
        // Readers of Iceberg metadata disagree on escaping, so such a path could not be read back everywhere.
        Some(path) if !path.contains(['?', '#', '%']) => Ok(root),
        _ => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("a mesh cannot lie at `{}`: its path has `?`, `#` or `%`, or is not UTF-8", root.display()),
        )
        .with_help("move it to a folder with a plain name")),
    }
}

/// The mesh directory: as told, or the nearest one upwards from a path, or from the working folder.
pub(crate) fn find_around(path: &Path, told: Option<&Path>) -> Result<PathBuf> {
    if told.is_some() {
        return find(told);
    }
    let absolute = path.canonicalize().map_err(|error| Error::io(ErrorCode::NotFound, "find", path, error))?;
    let around = absolute.ancestors().find(|folder| folder.join("mesh.yaml").is_file());
    find(around)
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from(std::time::SystemTime::now())
    }
}

struct RandomIds;

impl Ids for RandomIds {
    fn attempt(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn snapshot(&self) -> i64 {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // Positive, as every Iceberg client expects.
        (((high ^ low) >> 1) as i64).max(1)
    }
}

/// The mesh's registry, which signs what it keeps.
///
/// # Errors
/// A registry that cannot be opened.
pub async fn registry(root: &Path) -> Result<Arc<dyn Registry>> {
    if let Some(caller) = caller::current() {
        (caller.gate)()?;
    }
    let registry = SqlRegistry::open(&crate::registry::location(root)?).await?;
    Ok(Arc::new(registry.with_signer(Arc::new(signing_key(root)?))))
}

/// The mesh's registry with who acts on it.
pub(crate) async fn context(root: &Path) -> Result<Context> {
    context_over(registry(root).await?, Arc::default()).await
}

/// An open registry with who acts on it: the caller in scope. `rules` keeps the applied policies for the next time.
///
/// # Errors
/// Somebody whom the caller may not act as.
pub async fn context_over(registry: Arc<dyn Registry>, rules: Arc<RulesCache>) -> Result<Context> {
    let caller = caller::current().ok_or_else(|| Error::new(ErrorCode::Internal, "nobody calls"))?;
    let user = whoami::fallible::username()
        .map_err(|error| Error::new(ErrorCode::Internal, format!("cannot tell who runs this: {error}")))?;
    let owner = Context {
        registry,
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        principal: Principal { id: format!("user:{user}") },
        // Whoever can open the folder of an embedded mesh owns it.
        owns_mesh: true,
        impersonated_by: None,
        purpose: caller.purpose.clone(),
        door: caller.door.to_owned(),
        rules,
    };
    let Some(id) = caller.principal.as_ref() else { return Ok(owner) };
    let rules = owner.rules().await?;
    let found = rules.policies.principal_of(id, false);
    let found = found.map_err(|why| {
        Error::new(ErrorCode::InvalidArgument, format!("nobody can act as `{id}`: {why}"))
            .with_help("write `user:NAME`, `service:NAME`, `team:NAME` or `role:NAME`")
    })?;
    owner.authorize_mesh(Action::Administer, json!({ "operation": "impersonate", "as": found.id })).await?;
    let impersonated_by = Some(owner.principal.id.clone());
    Ok(Context { principal: Principal { id: found.id }, owns_mesh: false, impersonated_by, ..owner })
}

/// Decides on reading a file or table by its place, where somebody else acts than whoever runs the program: what that one may
/// open is the system's to say.
pub(crate) async fn read_location(told: Option<&Path>, location: &str, operation: &str) -> Result<()> {
    if caller::current().is_none_or(|caller| caller.principal.is_none()) {
        return Ok(());
    }
    let context = context(&find(told)?).await?;
    context.read_location(location, json!({ "operation": operation })).await.map(|_| ())
}

/// The key that the mesh signs with, made at first use.
pub(crate) fn signing_key(root: &Path) -> Result<SigningKey> {
    SigningKey::open_or_make(&root.join(".datamesh").join("keys").join("signing.key"))
}

/// The engine over the mesh's warehouse.
pub(crate) fn engine(root: &Path, memory_mib: usize) -> Result<DataEngine> {
    engine_over(warehouse(root)?, root, memory_mib)
}

/// The engine over the mesh's warehouse, with the key that values are masked by.
///
/// # Errors
/// Settings that cannot be used.
pub async fn governed(root: &Path, memory_mib: usize, context: &Context) -> Result<DataEngine> {
    Ok(engine(root, memory_mib)?.with_mask_key(&context.registry.mesh_identity().await?.key))
}

/// An engine that answers questions about manifests, wherever they lie; it has no tables.
///
/// # Errors
/// A machine that it cannot be started on.
pub fn engine_without_tables() -> Result<DataEngine> {
    engine_over(to_url(Path::new("warehouse")), Path::new("."), 64)
}

/// What mends a place that tables cannot be kept at.
const WAREHOUSE_HELP: &str =
    "set `warehouse:` in mesh.yaml, or DATAMESH_WAREHOUSE, to a folder or to s3://bucket/prefix";

/// The URL of the folder of all tables: as the environment says, else `mesh.yaml`, else a folder of the mesh.
pub(crate) fn warehouse(root: &Path) -> Result<String> {
    // The environment is meant as it stands; `mesh.yaml` may refer to it.
    if let Some(told) = std::env::var("DATAMESH_WAREHOUSE").ok().filter(|told| !told.is_empty()) {
        let working = |error| Error::io(ErrorCode::NotFound, "find", Path::new("."), error);
        return warehouse_at(&told, &std::env::current_dir().map_err(working)?);
    }
    let Some(told) = datamesh_manifest::load_settings(root)?.warehouse else {
        return warehouse_at("warehouse", root);
    };
    let mut redactor = Redactor::default();
    let unknown = |error: Error| {
        let help = error.help().unwrap_or(WAREHOUSE_HELP).to_owned();
        Error::new(ErrorCode::InvalidArgument, format!("the warehouse's place is not known: {error}")).with_help(help)
    };
    let place = redactor.resolve(&told, &crate::secrets::Secrets).map_err(unknown)?;
    warehouse_at(&place, root).map_err(|error| redactor.redact_error(error))
}

fn warehouse_at(told: &str, from: &Path) -> Result<String> {
    let refused = |why: &str| {
        Error::new(ErrorCode::InvalidArgument, format!("tables cannot be kept at `{}`: {why}", shown(told)))
            .with_help(WAREHOUSE_HELP)
    };
    if told.trim().is_empty() {
        return Err(refused("it is empty"));
    }
    let url = match told.split_once("://") {
        Some(("s3" | "gs" | "az", _)) => told.trim_end_matches('/').to_owned(),
        Some(("file", path)) if !path.starts_with('/') => return Err(refused("the path is not absolute")),
        Some(("file", path)) => to_url(&plain(Path::new(path))),
        Some(_) => return Err(refused("it is neither a folder nor an object store that can be written to")),
        None => to_url(&plain(&from.join(told))),
    };
    // Readers of Iceberg metadata disagree on escaping, so such a path could not be read back everywhere.
    if url.contains(['?', '#', '%']) {
        return Err(refused("its name has `?`, `#` or `%`"));
    }
    split(&url)?;
    Ok(url)
}

/// An absolute path without `.` and `..`: a file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

fn engine_over(warehouse: String, root: &Path, memory_mib: usize) -> Result<DataEngine> {
    let parallelism = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut private = vec![root.join(".datamesh")];
    // Settings that cannot be used are told by whoever opens the registry.
    if let Ok(Location::Sqlite(file)) = crate::registry::location(root) {
        private.push(file);
    }
    let engine = DataEngine::new(EngineOptions {
        warehouse,
        storage: Storage::new(storage_settings()),
        scratch: root.join(".datamesh").join("scratch"),
        private,
        parallelism,
        memory: memory_mib.max(64) << 20,
        batch_size: BATCH_SIZE,
    })?;
    Ok(engine.with_secrets(Arc::new(crate::secrets::Secrets)))
}

/// What the environment says of object stores: credentials and settings, by their usual names.
fn storage_settings() -> impl Iterator<Item = (String, String)> {
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| {
        ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
            || ["SERVICE_ACCOUNT", "DATAMESH_TIMEOUT"].contains(&name.as_str())
    })
}
