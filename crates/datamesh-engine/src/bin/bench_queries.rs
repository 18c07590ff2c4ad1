//! Runs SQL queries in one process, for `bench/tpch.py` and `bench/governed.py`: over a mesh's published tables, in clear or
//! governed by what a file says, or over the same data files with plain DataFusion. Prints one JSON line a query: CPU and
//! wall seconds of each run, and the number of rows.
//!
//! usage: bench_queries mesh|datafusion|governed:ACCESS.json MESH DOMAIN.PRODUCT RUNS ANSWERS QUERY.sql…
//!
//! `ACCESS.json` says, by table, which rows are seen and which columns are masked how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datamesh_app::ports::{Engine, Visibility};
use datamesh_core::ProductKey;
use datamesh_core::access::{AccessWay, RowFilter, TableAccess};
use datamesh_core::mask::Mask;
use datamesh_core::ports::{CatalogProduct, Registry};
use datamesh_engine::{DataEngine, EngineOptions};
use datamesh_iceberg::local::to_url;
use datamesh_iceberg::storage::Storage;
use datamesh_registry::SqlRegistry;
use futures::TryStreamExt;
use serde_json::json;

/// As the binary has it, and as DataFusion's own packages have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is seen of a table.
#[derive(serde::Deserialize)]
struct Decided {
    rows: RowFilter,
    masks: BTreeMap<String, Mask>,
}

impl Decided {
    fn access(&self) -> TableAccess {
        let masks: BTreeMap<Vec<String>, Mask> =
            self.masks.iter().map(|(column, mask)| (vec![column.clone()], mask.clone())).collect();
        let masked = masks.keys().cloned().collect();
        let way = AccessWay { rows: Some(self.rows.clone()), masked, ..AccessWay::default() };
        TableAccess { masks, ways: vec![way] }
    }
}

enum Contender {
    Mesh(Box<DataEngine>, Vec<CatalogProduct>, Visibility),
    DataFusion(SessionContext),
}

impl Contender {
    async fn run(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), Failure> {
        match self {
            Self::Mesh(engine, catalog, visible) => {
                let rows = engine.run_query(engine.plan_query(sql, catalog, visible).await?).await?;
                Ok((rows.schema, rows.batches.try_collect().await?))
            }
            Self::DataFusion(context) => {
                let frame = context.sql(sql).await?;
                Ok((Arc::new(frame.schema().as_arrow().clone()), frame.collect().await?))
            }
        }
    }
}

/// CPU seconds of every thread that lives, from the scheduler's own nanoseconds.
fn cpu_seconds() -> Result<f64, Failure> {
    let mut nanoseconds = 0_u64;
    for task in std::fs::read_dir("/proc/self/task")? {
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The folder of each table's one attempt, which holds the published files and no others.
fn data_folder(warehouse: &Path, catalog: &CatalogProduct, table: &str) -> Result<PathBuf, Failure> {
    let data = warehouse.join(&catalog.key.domain).join(catalog.key.namespace()).join(table).join("data");
    let mut attempts = std::fs::read_dir(&data)?.collect::<Result<Vec<_>, _>>()?;
    match (attempts.pop(), attempts.is_empty()) {
        (Some(attempt), true) => Ok(attempt.path()),
        _ => Err(format!("`{}` must hold exactly one attempt", data.display()).into()),
    }
}

async fn start(kind: &str, mesh: &Path, product: &str) -> Result<Contender, Failure> {
    let parallelism = std::thread::available_parallelism()?.get();
    let registry = SqlRegistry::open_sqlite(&mesh.join(".datamesh").join("registry.db")).await?;
    let catalog = registry.catalog().await?;
    let warehouse = mesh.canonicalize()?.join("warehouse");
    let access = kind.strip_prefix("governed:");
    if kind == "mesh" || access.is_some() {
        let mut visible = Visibility::plain(&catalog);
        if let Some(path) = access {
            let decided: BTreeMap<String, Decided> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
            let named = |(key, _): &(ProductKey, String)| format!("{}.{}", key.domain, key.product) == product;
            for (table, access) in visible.tables.iter_mut().filter(|(table, _)| named(table)) {
                *access = decided.get(&table.1).ok_or("a table without an access")?.access();
            }
        }
        let options = EngineOptions {
            warehouse: to_url(&warehouse),
            storage: Storage::new([]),
            scratch: mesh.join(".datamesh").join("scratch"),
            private: Vec::new(),
            parallelism,
            memory: 16 << 30,
            batch_size: 8192,
        };
        let engine = DataEngine::new(options)?.with_mask_key(&[0; 32]);
        return Ok(Contender::Mesh(Box::new(engine), catalog, visible));
    }
    let config = SessionConfig::new()
        .with_target_partitions(parallelism)
        .with_create_default_catalog_and_schema(true)
        .with_default_catalog_and_schema("datafusion", "public");
    let context = SessionContext::new_with_config(config);
    let found = catalog.iter().find(|entry| format!("{}.{}", entry.key.domain, entry.key.product) == product);
    let found = found.ok_or("no such product")?;
    for pointer in &found.tables {
        let folder = data_folder(&warehouse, found, &pointer.table)?;
        let folder = folder.to_str().ok_or("the path is not UTF-8")?;
        context.register_parquet(&pointer.table, folder, ParquetReadOptions::default()).await?;
    }
    Ok(Contender::DataFusion(context))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, mesh, product, runs, answers, queries @ ..] = arguments.as_slice() else {
        return Err(
            "usage: bench_queries mesh|datafusion|governed:ACCESS.json MESH DOMAIN.PRODUCT RUNS ANSWERS QUERY.sql…"
                .into(),
        );
    };
    let contender = start(kind, Path::new(mesh), product).await?;
    for path in queries {
        let path = Path::new(path);
        let mut sql = std::fs::read_to_string(path)?;
        sql = sql.replace("{tables}", if kind == "datafusion" { "datafusion.public" } else { product });
        let (mut cpu, mut wall) = (Vec::new(), Vec::new());
        let mut answer = None;
        // The first run reads the files into the page cache and is not counted.
        for run in 0..=runs.parse::<usize>()? {
            let (before, begun) = (cpu_seconds()?, Instant::now());
            let found = contender.run(&sql).await?;
            if run > 0 {
                wall.push(begun.elapsed().as_secs_f64());
                cpu.push(cpu_seconds()? - before);
            }
            answer = Some(found);
        }
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("query");
        let (schema, batches) = answer.ok_or("a query must run")?;
        let file = std::fs::File::create(Path::new(answers).join(format!("{name}.arrow")))?;
        let mut writer = datafusion::arrow::ipc::writer::FileWriter::try_new(file, &schema)?;
        for batch in &batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        println!("{}", json!({ "query": name, "cpu": cpu, "wall": wall, "rows": rows }));
    }
    Ok(())
}
