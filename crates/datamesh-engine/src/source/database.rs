//! Tables and queries of databases: one cursor in one read-only transaction, so that all rows are of one moment. Only the
//! contract's columns are selected, and conditions go into the database's own SQL, values as bound parameters.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use datafusion::sql::sqlparser::dialect::SQLiteDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datamesh_app::ports::{BoundDatabase, Pull};
use datamesh_core::contract::DatabaseRows;
use datamesh_core::secret::{Part, Redactor, SecretResolver, Template};
use datamesh_core::{DataType, Error, ErrorCode, Result};
use tokio::sync::mpsc::Sender;

use super::build::BatchBuilder;
use super::exec::QUEUE;
use super::{Content, MissingRequired, TableLayout, postgres, source_schema, sqlite};
use crate::error::wrap;

const TLS_HELP: &str = "check `sslmode` and `sslrootcert` in the URL, and the server's certificate";

/// How long a database may take to answer at all.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What is read of a database. Everything in it that came from a secret stays here.
#[derive(Clone)]
pub(crate) struct Database {
    /// As the user wrote it, references and all.
    pub(crate) name: String,
    url: String,
    folder: PathBuf,
    pub(super) rows: Rows,
    pub(super) condition: Option<Sql>,
    pub(super) after: Option<After>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A column of a database that no contract describes yet.
pub(crate) struct FoundColumn {
    pub(crate) name: String,
    /// The contract type that holds its values, or why there is none.
    pub(crate) data_type: std::result::Result<DataType, String>,
    /// What the database says of its type.
    pub(crate) evidence: String,
}

/// The rows of a database.
#[derive(Clone)]
pub(super) enum Rows {
    /// The parts of a table's name.
    Table(Vec<String>),
    /// A SELECT.
    Query(Sql),
}

/// SQL with values to bind between its pieces.
#[derive(Clone, Default)]
pub(super) struct Sql {
    pieces: Vec<SqlPiece>,
}

#[derive(Clone)]
enum SqlPiece {
    Text(String),
    Value(String),
}

/// Only rows after this value of the watermark column.
#[derive(Clone)]
pub(super) struct After {
    pub(super) column: String,
    pub(super) value: String,
}

/// A statement under construction: its text, and the values of its parameters in order.
#[derive(Default)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<String>,
}

impl Statement {
    pub(super) fn push(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    /// Adds a parameter: `$1` in PostgreSQL, `?1` in SQLite.
    pub(super) fn bind(&mut self, mark: char, value: &str) {
        self.values.push(value.to_owned());
        self.sql.push_str(&format!("{mark}{}", self.values.len()));
    }

    pub(super) fn push_sql(&mut self, mark: char, sql: &Sql) {
        for piece in &sql.pieces {
            match piece {
                SqlPiece::Text(text) => self.push(text),
                SqlPiece::Value(value) => self.bind(mark, value),
            }
        }
    }

    /// `FROM` what is read.
    pub(super) fn push_from(&mut self, mark: char, rows: &Rows) {
        match rows {
            Rows::Table(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| quote(part)).collect();
                self.push(&format!(" FROM {}", parts.join(".")));
            }
            Rows::Query(query) => {
                // On lines of their own, so that a comment at the query's end does not swallow the bracket.
                self.push(" FROM (\n");
                self.push_sql(mark, query);
                self.push("\n) AS source");
            }
        }
    }

    /// `WHERE` the manifest's condition and that of the watermark hold.
    pub(super) fn push_where(&mut self, mark: char, condition: Option<&Sql>, newer: impl FnOnce(&mut Self) -> bool) {
        let mut word = " WHERE ";
        if let Some(condition) = condition {
            self.push(" WHERE (\n");
            self.push_sql(mark, condition);
            self.push("\n)");
            word = " AND ";
        }
        let (before, values) = (self.sql.len(), self.values.len());
        self.push(word);
        if !newer(self) {
            self.sql.truncate(before);
            self.values.truncate(values);
        }
    }
}

/// An identifier in SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The parts of `schema.table`. A part in double quotes may have dots in it.
fn name_parts(name: &str) -> Result<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        let part = parts.last_mut();
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.into_iter().for_each(|part| part.push('"'));
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c => part.into_iter().for_each(|part| part.push(c)),
        }
    }
    if quoted || parts.iter().any(String::is_empty) || parts.len() > 3 || name.contains('\0') {
        return Err(Error::new(ErrorCode::InvalidManifest, format!("`{name}` is no name of a table"))
            .with_help("write `schema.table` or `table`; a name with dots in it needs double quotes"));
    }
    Ok(parts)
}

impl Database {
    /// Looks up the secrets of a database source. Nothing is opened yet.
    pub(crate) fn open(
        bound: &BoundDatabase,
        pull: Option<&Pull>,
        secrets: &dyn SecretResolver,
        redactor: &mut Redactor,
    ) -> Result<Self> {
        let url = redactor.resolve(&bound.spec.database, secrets)?;
        for password in passwords(&url) {
            redactor.add(password, "***".to_owned());
        }
        let mut sql = |text: &str| -> Result<Sql> {
            let template = Template::parse(text).map_err(|why| Error::new(ErrorCode::InvalidManifest, why))?;
            let mut pieces = Vec::new();
            for part in template.parts {
                pieces.push(match part {
                    Part::Text(text) => SqlPiece::Text(text),
                    Part::Secret(secret) => SqlPiece::Value(redactor.resolve(&secret.to_string(), secrets)?),
                });
            }
            Ok(Sql { pieces })
        };
        let rows = match &bound.spec.rows {
            DatabaseRows::Table(name) => Rows::Table(name_parts(name)?),
            DatabaseRows::Query(query) => Rows::Query(sql(query)?),
        };
        // PostgreSQL prepares one statement, in a transaction that writes nothing; SQLite would run several.
        if sqlite_path(&url).is_some() {
            if let DatabaseRows::Query(query) = &bound.spec.rows {
                one_expression(query, "query")?;
            }
            if let Some(condition) = &bound.spec.condition {
                one_expression(condition, "where")?;
            }
        }
        let condition = bound.spec.condition.as_deref().map(&mut sql).transpose()?;
        let after = pull.and_then(|pull| Some(After { column: pull.column.clone(), value: pull.after.clone()? }));
        Ok(Self { name: shown(bound), url, folder: bound.folder.clone(), rows, condition, after })
    }

    pub(super) fn fail(&self, why: impl fmt::Display) -> Error {
        Error::new(ErrorCode::SourceUnreadable, format!("cannot read {}: {why}", self.name))
    }

    /// A failure of the database, in its words and ours.
    pub(super) fn error(&self, doing: &str, error: sqlx::Error) -> Error {
        let new = |why: String| Error::new(ErrorCode::SourceUnreadable, format!("cannot {doing} {}: {why}", self.name));
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().map(|code| code.into_owned()).unwrap_or_default();
                let help = match code.as_str() {
                    "28P01" | "28000" => "check user and password, and what the server's pg_hba.conf allows",
                    "3D000" => "check the database's name at the end of the URL",
                    "42P01" | "3F000" => "check the table's name; names are taken as they stand, capitals and all",
                    "42703" => "check the names of the columns",
                    "42501" => "grant the user SELECT on it",
                    "57014" => "the server stopped the query; raise its statement_timeout, or read less with `where:`",
                    "53300" => "the server has no connection left; try again later",
                    _ => "the message is the database's own",
                };
                let code = if code.is_empty() { code } else { format!(" ({code})") };
                new(format!("{}{code}", database.message())).with_help(help)
            }
            sqlx::Error::Io(io) if io.to_string().contains("certificate") => new(io.to_string()).with_help(TLS_HELP),
            sqlx::Error::Io(io) => new(io.to_string()).with_help("check host and port, and that the server runs"),
            sqlx::Error::Tls(tls) => new(format!("TLS: {tls}")).with_help(TLS_HELP),
            other => new(other.to_string()).with_help("nothing was committed; run the same command again"),
        }
    }

    async fn read(
        &self,
        layout: &TableLayout,
        sender: &Sender<DataFusionResult<RecordBatch>>,
    ) -> Result<(), ReadError> {
        let sink = Sink::new(layout, sender);
        if self.is_postgres() {
            postgres::read(self, &self.url, layout, sink).await
        } else if let Some(path) = sqlite_path(&self.url) {
            sqlite::read(self, &self.folder.join(path), layout, sink).await
        } else {
            Err(self.unknown().into())
        }
    }

    /// What columns the rows have, in order, and the types that hold them.
    pub(crate) async fn columns(&self) -> Result<Vec<FoundColumn>> {
        if self.is_postgres() {
            postgres::columns(self, &self.url).await
        } else if let Some(path) = sqlite_path(&self.url) {
            sqlite::columns(self, &self.folder.join(path)).await
        } else {
            Err(self.unknown())
        }
    }

    fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")
    }

    fn unknown(&self) -> Error {
        Error::new(ErrorCode::InvalidManifest, format!("{} is no database that can be read", self.name))
            .with_help("its URL begins with `postgres://` or `sqlite:`")
    }
}

/// The file that a URL of SQLite means.
pub(super) fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}

/// Refuses text that would not stay within the brackets that are put around it: a second statement could do anything.
fn one_expression(text: &str, what: &str) -> Result<()> {
    let refused = |why: &str| {
        Err(Error::new(ErrorCode::InvalidManifest, format!("`{what}` of the database source {why}"))
            .with_help("write one SELECT, or one condition, without `;`"))
    };
    let Ok(tokens) = Tokenizer::new(&SQLiteDialect {}, text).tokenize() else {
        return refused("cannot be read: a quote or a comment does not end");
    };
    let mut depth = 0_usize;
    for token in tokens {
        match token {
            Token::SemiColon => return refused("has more than one statement"),
            // What is a quoted text here is a name to SQLite.
            Token::DollarQuotedString(_) => return refused("has a text in dollars"),
            Token::LParen => depth += 1,
            Token::RParen => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return refused("closes a bracket that it does not open"),
            },
            _ => {}
        }
    }
    if depth > 0 { refused("opens a bracket that it does not close") } else { Ok(()) }
}

/// How a database source is called in messages and reports: never with what a reference stands for.
fn shown(bound: &BoundDatabase) -> String {
    match &bound.spec.rows {
        DatabaseRows::Table(table) => format!("table `{table}` of `{}`", bound.spec.database),
        DatabaseRows::Query(_) => format!("a query of `{}`", bound.spec.database),
    }
}

/// The passwords of a URL, as written and decoded.
fn passwords(url: &str) -> Vec<String> {
    let Ok(parsed) = url::Url::parse(url) else { return Vec::new() };
    let mut found: Vec<String> = parsed.password().map(str::to_owned).into_iter().collect();
    let decoded: Vec<String> = found
        .iter()
        .flat_map(|raw| url::form_urlencoded::parse(raw.as_bytes()).map(|(key, _)| key.into_owned()))
        .collect();
    found.extend(decoded);
    found.extend(parsed.query_pairs().filter(|(key, _)| key.contains("password")).map(|(_, value)| value.into_owned()));
    found
}

/// Why reading ended early.
pub(super) enum ReadError {
    /// It failed.
    Failed(Error),
    /// A required column is not there.
    Missing(MissingRequired),
    /// Nobody listens any more.
    Closed,
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Where rows go: into batches, and their identity into the content.
pub(super) struct Sink<'a> {
    layout: &'a TableLayout,
    sender: &'a Sender<DataFusionResult<RecordBatch>>,
    pub(super) batch: BatchBuilder<'a>,
    content: Content,
    /// The row as it is hashed.
    record: Vec<u8>,
    position: u64,
}

impl<'a> Sink<'a> {
    fn new(layout: &'a TableLayout, sender: &'a Sender<DataFusionResult<RecordBatch>>) -> Self {
        let batch = BatchBuilder::new(layout, 0);
        Self { layout, sender, batch, content: Content::default(), record: Vec::new(), position: 0 }
    }

    /// Takes note of a cell: its column, a tag of its kind, and its bytes.
    pub(super) fn note(&mut self, column: usize, tag: u8, bytes: &[u8]) {
        self.record.extend(self.layout.table.columns[column].name.as_bytes());
        self.record.extend([0, tag]);
        self.record.extend((bytes.len() as u64).to_le_bytes());
        self.record.extend(bytes);
    }

    /// Ends a row.
    pub(super) fn end(&mut self, raw: impl FnOnce() -> Vec<u8>) {
        self.position += 1;
        self.content.add(1, &self.record);
        self.layout.facts.read(self.record.len() as u64);
        self.record.clear();
        self.batch.end_record(self.position, raw);
    }

    /// Hands over what is there, where it fills a batch.
    pub(super) async fn flush_full(&mut self) -> Result<(), ReadError> {
        if self.batch.is_full() { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), ReadError> {
        let batch = self.batch.finish()?;
        self.sender.send(Ok(batch)).await.map_err(|_| ReadError::Closed)
    }

    /// Hands over the last rows.
    pub(super) async fn finish(mut self) -> Result<(), ReadError> {
        if !self.batch.is_empty() {
            self.flush().await?;
        }
        self.layout.facts.add_content(self.content);
        Ok(())
    }
}

/// Reads a database source.
#[derive(Debug)]
pub(crate) struct DatabaseExec {
    layout: Arc<TableLayout>,
    database: Database,
    properties: Arc<PlanProperties>,
}

impl DatabaseExec {
    pub(crate) fn new(layout: Arc<TableLayout>, database: Database) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(source_schema(&layout.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { layout, database, properties: Arc::new(properties) }
    }
}

impl DisplayAs for DatabaseExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseExec: {}", self.database.name)
    }
}

impl ExecutionPlan for DatabaseExec {
    fn name(&self) -> &'static str {
        "DatabaseExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), QUEUE);
        let sender = builder.tx();
        let (layout, database) = (self.layout.clone(), self.database.clone());
        builder.spawn(async move {
            match database.read(&layout, &sender).await {
                Ok(()) | Err(ReadError::Closed) => Ok(()),
                Err(ReadError::Failed(error)) => Err(wrap(error)),
                Err(ReadError::Missing(missing)) => Err(DataFusionError::External(Box::new(missing))),
            }
        });
        Ok(builder.build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_into_parts() {
        for (name, expected) in [
            ("customers", Some(vec!["customers"])),
            ("public.customers", Some(vec!["public", "customers"])),
            ("\"odd.name\".\"x\"\"y\"", Some(vec!["odd.name", "x\"y"])),
            ("", None),
            ("a..b", None),
            ("\"a", None),
            ("a.b.c.d", None),
        ] {
            assert_eq!(
                name_parts(name).ok(),
                expected.map(|parts| parts.into_iter().map(str::to_owned).collect::<Vec<_>>()),
                "{name}"
            );
        }
        assert_eq!(quote("a\"; DROP TABLE x --"), "\"a\"\"; DROP TABLE x --\"");
    }

    #[test]
    fn values_are_bound_in_order() {
        let sql = |pieces: Vec<SqlPiece>| Sql { pieces };
        let query = sql(vec![SqlPiece::Text("SELECT * FROM t WHERE r = ".into()), SqlPiece::Value("'; DROP".into())]);
        let condition = sql(vec![SqlPiece::Text("a > ".into()), SqlPiece::Value("5".into())]);
        let mut statement = Statement::default();
        statement.push("SELECT 1");
        statement.push_from('$', &Rows::Query(query));
        statement.push_where('$', Some(&condition), |statement| {
            statement.push("w > ");
            statement.bind('$', "7");
            true
        });
        assert_eq!(
            statement.sql,
            "SELECT 1 FROM (\nSELECT * FROM t WHERE r = $1\n) AS source WHERE (\na > $2\n) AND w > $3"
        );
        assert_eq!(statement.values, ["'; DROP", "5", "7"]);
        let mut bare = Statement::default();
        bare.push_where('?', None, |_| false);
        assert_eq!(bare.sql, "");
    }

    #[test]
    fn passwords_are_found_in_urls() {
        assert_eq!(passwords("postgres://anna:p%40ss@db/crm"), ["p%40ss", "p@ss"]);
        assert_eq!(passwords("postgres://db/crm?sslpassword=x"), ["x"]);
        assert!(passwords("sqlite:crm.db").is_empty());
    }

    #[test]
    fn text_stays_within_its_brackets() {
        for sql in [
            "SELECT a, (b + 1) FROM t -- ; )",
            "SELECT ';)' AS \"x;)\", [y;)], `z;)` FROM t /* ; */",
            "a > 1 AND (b < 2)",
            "SELECT ${env:X}",
        ] {
            assert!(one_expression(sql, "query").is_ok(), "{sql}");
        }
        for sql in [
            "SELECT 1; DELETE FROM t",
            "SELECT 1) AS s; ATTACH 'x' AS r; SELECT * FROM (SELECT 2",
            "SELECT 1) UNION (SELECT 2",
            "SELECT (1",
            "SELECT 'open",
            "SELECT 1 /* open",
            "SELECT $a$) AS s; VACUUM INTO 'x'; --$a$",
        ] {
            assert!(one_expression(sql, "query").is_err(), "{sql}");
        }
    }
}
