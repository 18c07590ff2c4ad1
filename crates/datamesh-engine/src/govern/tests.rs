mod attacks;
mod doors;
mod filters;
mod pushdown;
mod travel;
mod union;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datamesh_app::Progress;
use datamesh_app::ports::{BoundSource, Engine, EvolutionJob, QueryRequest, StageInput, StageJob, Visibility};
use datamesh_core::access::{AccessWay, AttributeValue, RowFilter, TableAccess};
use datamesh_core::contract::{CsvOptions, DataProduct, FileSource};
use datamesh_core::history::History;
use datamesh_core::ids::AttemptId;
use datamesh_core::mask::Mask;
use datamesh_core::ports::{CatalogProduct, PublishStep, Revision, StepObserver, TablePointer};
use datamesh_core::{ProductKey, Table};
use datamesh_iceberg::local::to_url;
use datamesh_iceberg::storage::Storage;
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{DataEngine, EngineOptions};

struct Silent;

impl StepObserver for Silent {
    fn reached(&self, _: PublishStep) {}
}

impl Progress for Silent {
    fn read(&self, _: &str, _: u64, _: Option<u64>) {}
}

/// A mesh of the product `hr.staff` with published tables.
struct Mesh {
    engine: DataEngine,
    folder: tempfile::TempDir,
    catalog: Vec<CatalogProduct>,
    history: History,
    published: u64,
}

fn product(tables: Vec<Value>) -> DataProduct {
    let contract = json!({
        "format": 1, "id": { "domain": "hr", "product": "staff" }, "version": "1.0.0", "owner": "team", "status": "active", "tables": tables,
    });
    serde_json::from_value(contract).expect("a contract")
}

fn key() -> ProductKey {
    ProductKey { domain: "hr".into(), product: "staff".into(), major: 1 }
}

impl Mesh {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = EngineOptions {
            warehouse: to_url(folder.path()),
            storage: Storage::new([]),
            scratch: folder.path().join("scratch"),
            private: Vec::new(),
            parallelism: 2,
            memory: 256 << 20,
            batch_size: 8192,
        };
        let engine = DataEngine::new(options).expect("an engine").with_mask_key(&[7; 32]);
        let revision = Revision {
            number: 1,
            contract: product(Vec::new()),
            created_at: DateTime::UNIX_EPOCH,
            created_by: "test".into(),
        };
        let catalog = vec![CatalogProduct { key: key(), revision, tables: Vec::new() }];
        Self { engine, folder, catalog, history: History::default(), published: 0 }
    }

    /// Publishes rows of a table under a contract of it.
    async fn publish(&mut self, table: Value, rows: &[Value]) -> i64 {
        let path = self.folder.path().join(format!("{}.ndjson", self.published));
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(&path, text).expect("a file");
        let spec = FileSource { path: path.display().to_string(), format: None, csv: CsvOptions::default() };
        let source =
            BoundSource { paths: vec![spec.path.clone()], spec, folder: self.folder.path().to_owned(), pulled: false };
        self.publish_input(table, StageInput::Source(source)).await
    }

    /// Publishes what an input yields.
    async fn publish_input(&mut self, table: Value, input: StageInput) -> i64 {
        let contract: Table = serde_json::from_value(table).expect("a table");
        self.published += 1;
        let number = self.published;
        let attempt = AttemptId::new(Uuid::from_u128(u128::from(number)));
        let product = &mut self.catalog[0];
        let name = contract.name.sql();
        let mut base = product.tables.iter().find(|pointer| pointer.table == name).cloned();
        if let Some(pointer) = &mut base {
            let job = EvolutionJob { table: &contract, pointer: &pointer.clone(), drops: true };
            if self.engine.evolved(&job).expect("evolved").is_some() {
                let prepared = self.engine.prepare_evolution(&job, &attempt).await.expect("evolved");
                (pointer.metadata_location, pointer.metadata) = (prepared.metadata_location, prepared.metadata);
            }
        }
        let job = StageJob {
            product: key(),
            table: contract.clone(),
            input,
            pull: None,
            base: base.clone(),
            drops: false,
            pinned: Vec::new(),
            attempt: attempt.clone(),
            rehearsal: None,
        };
        let staged = self.engine.stage(job, Arc::new(Silent)).await.expect("staged");
        let settled = self.engine.settle(&staged, base.as_ref(), &[], &[]).await.expect("settled");
        let report = DataEngine::report(&settled);
        assert_eq!(report.quarantined, 0, "{report:?}");
        let snapshot = i64::try_from(number).expect("small") + 1000;
        let prepared = self.engine.prepare(&settled, &attempt, DateTime::UNIX_EPOCH, snapshot, &|| {}).await;
        let prepared = prepared.expect("prepared");
        product.tables.retain(|pointer| pointer.table != name);
        product.tables.push(TablePointer {
            table: name.clone(),
            metadata_location: prepared.metadata_location,
            metadata: prepared.metadata,
            content: number.to_string(),
            publication: number,
            rows: prepared.total_rows,
            sequence: number,
        });
        let tables = &mut product.revision.contract.tables;
        tables.retain(|table| table.name.sql() != name);
        tables.push(contract);
        snapshot
    }

    /// What everything in the mesh shows when `table` shows only this.
    fn visible(&self, table: &str, access: TableAccess) -> Visibility {
        let mut visible = Visibility::plain(&self.catalog);
        visible.tables.insert((key(), table.to_owned()), access);
        visible
    }

    /// A query's answer as text, or its error with its help.
    async fn ask(&self, sql: &str, visible: &Visibility) -> Result<String, String> {
        let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
        let answer = async {
            let query = self.engine.plan_request(&request, &self.catalog, &self.history, visible).await?;
            let rows = self.engine.run_query(query).await?;
            rows.batches.try_collect::<Vec<_>>().await
        };
        let described = |error: datamesh_core::Error| {
            let mut text = format!("{error} {}", error.help().unwrap_or_default());
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text.push_str(&format!(" / {inner}"));
                source = inner.source();
            }
            text
        };
        let batches = answer.await.map_err(described)?;
        Ok(pretty_format_batches(&batches).map_err(|error| error.to_string())?.to_string())
    }
}

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn filter(condition: &str, attributes: &[(&str, AttributeValue)]) -> RowFilter {
    let attributes: BTreeMap<_, _> =
        attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    RowFilter { condition: condition.to_owned(), attributes }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::String(value.to_owned())
}

/// One way that admits the rows of a country and masks the given paths.
fn access(rows: Option<RowFilter>, masks: &[(&str, &str)], hidden: &[&str]) -> TableAccess {
    let masks: BTreeMap<Vec<String>, Mask> =
        masks.iter().map(|(column, mask)| (path(column), Mask::parse(mask).expect("a mask"))).collect();
    let way = AccessWay {
        rows,
        masked: masks.keys().cloned().collect(),
        hidden: hidden.iter().map(|name| (*name).to_owned()).collect(),
        ..AccessWay::default()
    };
    TableAccess { masks, ways: vec![way] }
}

/// The table `people`: rows of DE, which readers see, and of FR, which they do not.
fn people() -> (Value, Vec<Value>) {
    let column = |name: &str, data_type: &str| json!({ "name": name, "type": data_type });
    let table = json!({
        "name": "people",
        "columns": [
            column("id", "long"), column("country", "string"), column("div", "int"), column("digits", "string"),
            column("email", "string"), column("name", "string"), column("salary", "int"), column("hush", "string"),
            { "name": "address", "type": { "struct": [column("city", "string"), column("street", "string")] } },
            { "name": "tags", "type": { "array": column("element", "string") } },
        ],
        "partitionBy": [],
    });
    let row = |id: i64, country: &str, div: i32, digits: &str, who: &str, salary: i32| {
        json!({
            "id": id, "country": country, "div": div, "digits": digits, "email": format!("{who}@raw.example"),
            "name": format!("{who} Raw"), "salary": salary, "hush": format!("hush {who}"),
            "address": { "city": format!("City of {who}"), "street": format!("Street of {who}") },
            "tags": [format!("tag {who}")],
        })
    };
    let rows = vec![
        row(1, "DE", 5, "12", "anna", 71_111),
        row(2, "DE", 2, "7", "bert", 72_222),
        row(3, "DE", 1, "3", "cleo", 77_777),
        row(101, "FR", 0, "(unseen", "yves", 81_111),
        row(102, "FR", 0, "(unseen", "zoe", 82_222),
        row(103, "FR", 0, "(unseen", "yann", 83_333),
        row(104, "FR", 0, "(unseen", "zeno", 84_444),
    ];
    (table, rows)
}
