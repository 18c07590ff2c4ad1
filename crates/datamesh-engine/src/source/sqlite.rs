//! SQLite. A cell has a type of its own there, whatever its column says, so each one is judged by itself: one that does
//! not fit the contract's type is a fault of its row.

use std::path::Path;

use datamesh_core::{DataType, Error};
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteValueRef};
use sqlx::{
    Column as _, ConnectOptions, Connection, Decode, Executor, Row, Sqlite, Statement as _, TypeInfo, ValueRef,
};

use super::build::BatchBuilder;
use super::database::{CONNECT_TIMEOUT, Database, FoundColumn, ReadError, Rows, Sink, Statement, quote};
use super::{TableLayout, match_columns};

/// A cell, by its storage class.
enum Cell<'r> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'r [u8]),
    Blob(&'r [u8]),
}

fn cell(row: &SqliteRow, at: usize) -> Result<Cell<'_>, sqlx::Error> {
    let value: SqliteValueRef<'_> = row.try_get_raw(at)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let class = value.type_info().name().to_owned();
    let decoded = match class.as_str() {
        "INTEGER" => <i64 as Decode<'_, Sqlite>>::decode(value).map(Cell::Integer),
        "REAL" => <f64 as Decode<'_, Sqlite>>::decode(value).map(Cell::Real),
        "TEXT" => <&[u8] as Decode<'_, Sqlite>>::decode(value).map(Cell::Text),
        "BLOB" => <&[u8] as Decode<'_, Sqlite>>::decode(value).map(Cell::Blob),
        other => Err(format!("a cell of class {other}").into()),
    };
    decoded.map_err(|source| sqlx::Error::ColumnDecode { index: at.to_string(), source })
}

/// The shortest text that is this number, without an exponent.
fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value}")
    } else if value > 0.0 {
        "Infinity".to_owned()
    } else {
        "-Infinity".to_owned()
    }
}

fn append(batch: &mut BatchBuilder<'_>, column: usize, data_type: &DataType, cell: &Cell<'_>) {
    use DataType as D;
    let is_number = matches!(data_type, D::Int | D::Long | D::Float | D::Double | D::Decimal(..));
    match cell {
        Cell::Null => batch.append_null(column),
        Cell::Integer(value) if is_number => batch.append_text(column, &value.to_string()),
        // SQLite has no booleans; its own TRUE and FALSE are 1 and 0.
        Cell::Integer(value @ (0 | 1)) if *data_type == D::Boolean => {
            batch.append_text(column, if *value == 1 { "true" } else { "false" });
        }
        Cell::Real(value) if is_number => batch.append_text(column, &number(*value)),
        Cell::Integer(value) => batch.append_misfit(column, &value.to_string()),
        Cell::Real(value) => batch.append_misfit(column, &number(*value)),
        Cell::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if *data_type != D::Binary => batch.append_text(column, text),
            Ok(text) => batch.append_misfit(column, text),
            Err(_) => batch.append_misfit(column, &String::from_utf8_lossy(bytes)),
        },
        Cell::Blob(bytes) => batch.append_bytes(column, bytes),
    }
}

fn as_json(cell: &Cell<'_>) -> serde_json::Value {
    match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Integer(value) => (*value).into(),
        Cell::Real(value) if value.is_finite() => (*value).into(),
        Cell::Real(value) => number(*value).into(),
        Cell::Text(bytes) => String::from_utf8_lossy(bytes).into(),
        Cell::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::Value::from(format!("x'{hex}'"))
        }
    }
}

/// A condition that no newer row fails. It leaves out what surely is old; the pass itself decides about the rest, and
/// about cells of another class, which the database would order in its own way.
fn push_newer(statement: &mut Statement, column: &str, data_type: &DataType, value: &str) -> bool {
    let column = quote(column);
    let compare = |statement: &mut Statement, class: &str, left: &str, operator: &str, right: (&str, &str)| {
        statement.push(&format!("(typeof({column}) NOT IN ({class}) OR {left} {operator} {}", right.0));
        statement.bind('?', value);
        statement.push(&format!("{})", right.1));
        true
    };
    match data_type {
        DataType::Int | DataType::Long => {
            compare(statement, "'integer', 'real'", &column, ">", ("CAST(", " AS INTEGER)"))
        }
        DataType::Decimal(..) => compare(statement, "'integer', 'real'", &column, ">=", ("CAST(", " AS REAL)")),
        DataType::String => compare(statement, "'text'", &format!("{column} COLLATE BINARY"), ">", ("", "")),
        DataType::Date => compare(statement, "'text'", &column, ">", ("", "")),
        // A time of any offset lies within a day of its own date.
        DataType::Timestamp | DataType::TimestampNtz => compare(
            statement,
            "'text'",
            &format!("substr({column}, 1, 10)"),
            ">=",
            ("date(substr(", ", 1, 10), '-1 day')"),
        ),
        _ => false,
    }
}

/// A connection in a transaction that sees one moment, and the names of the rows' columns.
async fn begin(database: &Database, path: &Path) -> Result<(SqliteConnection, Vec<String>), Error> {
    if !path.is_file() {
        return Err(database
            .fail("there is no such file")
            .with_help("a relative path starts from the manifest's folder"));
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(CONNECT_TIMEOUT)
        .disable_statement_logging();
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(|error| database.error("open", error))?;
    let read_error = |error| database.error("read", error);
    connection.execute("BEGIN").await.map_err(read_error)?;
    let encoding = sqlx::query("PRAGMA encoding").fetch_one(&mut connection).await.map_err(read_error)?;
    let encoding: String = encoding.try_get(0).map_err(read_error)?;
    if encoding != "UTF-8" {
        return Err(database
            .fail(format!("its texts are {encoding}"))
            .with_help("copy it with `VACUUM INTO` from a connection with `PRAGMA encoding = 'UTF-8'`"));
    }

    let mut all = Statement::default();
    all.push("SELECT *");
    all.push_from('?', &database.rows);
    let described = connection.prepare(&all.sql).await.map_err(read_error)?;
    let present: Vec<String> = described.columns().iter().map(|column| column.name().to_owned()).collect();
    drop(described);
    Ok((connection, present))
}

/// So many columns are asked for their classes at once: SQLite's answers have at most 2,000 columns.
const ASKED: usize = 400;

/// The columns of the rows and the contract types that hold them: what their cells are counts, and what the table says of
/// them where the cells leave it open.
pub(super) async fn columns(database: &Database, path: &Path) -> Result<Vec<FoundColumn>, Error> {
    let (mut connection, present) = begin(database, path).await?;
    let read_error = |error| database.error("read", error);
    let mut declared = std::collections::HashMap::new();
    if let Rows::Table(parts) = &database.rows {
        let schema = parts.len().checked_sub(2).and_then(|at| parts.get(at));
        let sql = match schema {
            Some(_) => "SELECT name, type FROM pragma_table_xinfo(?1, ?2)",
            None => "SELECT name, type FROM pragma_table_xinfo(?1)",
        };
        let query = schema.into_iter().fold(sqlx::query(sql).bind(parts.last()), |query, schema| query.bind(schema));
        for row in query.fetch_all(&mut connection).await.map_err(read_error)? {
            let (name, word): (String, String) =
                (row.try_get(0).map_err(read_error)?, row.try_get(1).map_err(read_error)?);
            declared.insert(name, word.to_ascii_uppercase());
        }
    }
    let mut found = Vec::new();
    for names in present.chunks(ASKED) {
        let classes = ["integer", "real", "text", "blob"];
        let asked = names.iter().flat_map(|name| {
            let name = quote(name);
            classes.map(|class| format!("coalesce(max(typeof({name}) = '{class}'), 0)"))
        });
        let mut statement = Statement::default();
        statement.push(&format!("SELECT {}", asked.collect::<Vec<_>>().join(", ")));
        statement.push_from('?', &database.rows);
        let query = statement
            .values
            .iter()
            .fold(sqlx::query(&statement.sql).persistent(false), |query, value| query.bind(value.as_str()));
        let row = query.fetch_one(&mut connection).await.map_err(read_error)?;
        for (at, name) in names.iter().enumerate() {
            let mut has = [false; 4];
            for (class, has) in has.iter_mut().enumerate() {
                *has = row.try_get::<i64, _>(at * classes.len() + class).map_err(read_error)? != 0;
            }
            let word = declared.get(name).map_or("", String::as_str);
            let kinds = ["whole numbers", "numbers", "texts", "blobs"].into_iter().zip(has);
            let kinds: Vec<&str> = kinds.filter(|(_, has)| *has).map(|(kind, _)| kind).collect();
            let mut evidence = if word.is_empty() { "no type".to_owned() } else { word.to_lowercase() };
            evidence.push_str(" in the database");
            if !kinds.is_empty() {
                evidence.push_str(&format!(", {}", kinds.join(" and ")));
            }
            found.push(FoundColumn { name: name.clone(), data_type: Ok(held_by(word, has)), evidence });
        }
    }
    // Nothing was changed; a failure to say goodbye loses nothing.
    let _ = connection.close().await;
    Ok(found)
}

/// The contract type of a column whose cells are `[integers, reals, texts, blobs]`, by the type that its table declares
/// (SQLite, "Datatypes", 3.1: what counts is which words are in it).
fn held_by(declared: &str, has: [bool; 4]) -> DataType {
    let is = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    let decimal = || {
        let (_, digits) = declared.split_once('(')?;
        let (precision, scale) = digits.trim_end_matches([')', ' ']).split_once(',').unwrap_or((digits, "0"));
        let number = |text: &str| text.trim().trim_end_matches(')').parse::<u8>().ok();
        match (number(precision)?, number(scale)?) {
            (precision @ 1..=38, scale) if scale <= precision && is(&["DEC", "NUM"]) => {
                Some(DataType::Decimal(precision, scale))
            }
            _ => None,
        }
    };
    let moment = match () {
        () if is(&["DATETIME", "TIMESTAMP"]) => Some(DataType::TimestampNtz),
        () if is(&["DATE"]) => Some(DataType::Date),
        () => None,
    };
    match has {
        [false, false, false, false] => match () {
            () if is(&["BOOL"]) => DataType::Boolean,
            () if is(&["INT"]) => DataType::Long,
            () if is(&["REAL", "FLOA", "DOUB"]) => DataType::Double,
            () if is(&["BLOB"]) => DataType::Binary,
            () => decimal().or(moment).unwrap_or(DataType::String),
        },
        [true, false, false, false] if is(&["BOOL"]) => DataType::Boolean,
        [true, false, false, false] => decimal().unwrap_or(DataType::Long),
        [_, true, false, false] => decimal().unwrap_or(DataType::Double),
        [false, false, false, true] => DataType::Binary,
        // Texts that are dates are seen to be.
        _ => DataType::String,
    }
}

/// Reads the rows in one transaction that sees one moment.
pub(super) async fn read(
    database: &Database,
    path: &Path,
    layout: &TableLayout,
    mut sink: Sink<'_>,
) -> Result<(), ReadError> {
    let (mut connection, present) = begin(database, path).await?;
    let read_error = |error| database.error("read", error);
    let names: Vec<&str> = present.iter().map(String::as_str).collect();
    match_columns(layout, &names).map_err(ReadError::Missing)?;
    let selected: Vec<usize> =
        (0..layout.table.columns.len()).filter(|at| present.contains(&layout.table.columns[*at].name)).collect();

    let mut statement = Statement::default();
    let columns: Vec<String> = selected.iter().map(|at| quote(&layout.table.columns[*at].name)).collect();
    statement.push(&format!("SELECT {}", if columns.is_empty() { "NULL".to_owned() } else { columns.join(", ") }));
    statement.push_from('?', &database.rows);
    statement.push_where('?', database.condition.as_ref(), |statement| {
        let Some(after) = &database.after else { return false };
        let column = selected.iter().map(|at| &layout.table.columns[*at]).find(|column| column.name == after.column);
        column.is_some_and(|column| push_newer(statement, &column.name, &column.data_type, &after.value))
    });

    let absent: Vec<usize> = (0..layout.table.columns.len()).filter(|at| !selected.contains(at)).collect();
    let query = statement
        .values
        .iter()
        .fold(sqlx::query(&statement.sql).persistent(false), |query, value| query.bind(value.as_str()));
    let mut rows = query.fetch(&mut connection);
    while let Some(row) = rows.try_next().await.map_err(read_error)? {
        for (at, column) in selected.iter().enumerate() {
            let cell = cell(&row, at).map_err(read_error)?;
            match &cell {
                Cell::Null => sink.note(*column, 0, &[]),
                Cell::Integer(value) => sink.note(*column, 1, &value.to_le_bytes()),
                Cell::Real(value) => sink.note(*column, 2, &value.to_bits().to_le_bytes()),
                Cell::Text(bytes) => sink.note(*column, 3, bytes),
                Cell::Blob(bytes) => sink.note(*column, 4, bytes),
            }
            append(&mut sink.batch, *column, &layout.table.columns[*column].data_type, &cell);
        }
        absent.iter().for_each(|column| sink.batch.append_null(*column));
        sink.end(|| {
            let cells = selected.iter().enumerate().filter_map(|(at, column)| {
                Some((layout.table.columns[*column].name.clone(), as_json(&cell(&row, at).ok()?)))
            });
            serde_json::Value::Object(cells.collect()).to_string().into_bytes()
        });
        sink.flush_full().await?;
    }
    drop(rows);
    sink.finish().await?;
    // Nothing was changed; a failure to say goodbye loses nothing.
    let _ = connection.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_say_the_type_and_the_table_where_they_do_not() {
        let parse = |text: &str| DataType::parse(text).expect(text);
        let none = [false; 4];
        for (declared, has, expected) in [
            ("INTEGER", [true, false, false, false], "long"),
            ("INTEGER", [true, false, true, false], "string"),
            ("INTEGER", none, "long"),
            ("BOOLEAN", [true, false, false, false], "boolean"),
            ("DECIMAL(10, 2)", [true, true, false, false], "decimal(10,2)"),
            ("NUMERIC(10)", [true, false, false, false], "decimal(10,0)"),
            ("DECIMAL(99,2)", [true, true, false, false], "double"),
            ("DECIMAL", [true, true, false, false], "double"),
            ("VARCHAR(10)", [true, true, false, false], "double"),
            ("DATE", [false, false, true, false], "string"),
            ("DATE", none, "date"),
            ("DATE", [true, false, false, false], "long"),
            ("DATETIME", none, "timestamp_ntz"),
            ("TEXT", [false, false, true, false], "string"),
            ("TEXT", [false, false, false, true], "binary"),
            ("", [false, false, true, true], "string"),
            ("", none, "string"),
        ] {
            assert_eq!(held_by(declared, has), parse(expected), "{declared} {has:?}");
        }
    }
}
