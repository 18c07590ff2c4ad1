//! PostgreSQL. Every column is read as the text that the server makes of it, because that text is exact for every type:
//! numerics of any size, infinities, enums and domains. Which of its types can be which of ours is checked beforehand.

use datamesh_core::{Column, DataType, Error, ErrorCode};
use futures::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgTypeInfo, PgTypeKind};
use sqlx::{Column as _, ConnectOptions, Connection, Executor, PgConnection, Row, Statement as _, TypeInfo};

use super::database::{CONNECT_TIMEOUT, Database, FoundColumn, ReadError, Rows, Sink, Statement, quote};
use super::{TableLayout, match_columns};

/// How a column is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    Text,
    /// Arrays and composite types, as JSON.
    Json,
    Base64,
    /// An array of bytes, as JSON whose items are Base64.
    Base64Items,
}

/// What a PostgreSQL type is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Boolean,
    Integer,
    Number,
    Text,
    Uuid,
    Json,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Array,
    Composite,
}

/// The type below any domains.
fn base(info: &PgTypeInfo) -> &PgTypeInfo {
    match info.kind() {
        PgTypeKind::Domain(inner) => base(inner),
        _ => info,
    }
}

fn family(info: &PgTypeInfo) -> Option<Family> {
    let info = base(info);
    match info.kind() {
        PgTypeKind::Enum(_) => return Some(Family::Text),
        PgTypeKind::Array(_) => return Some(Family::Array),
        PgTypeKind::Composite(_) => return Some(Family::Composite),
        PgTypeKind::Simple => {}
        _ => return None,
    }
    // Numbers of built-in types never change (pg_type.dat).
    Some(match info.oid().map(|oid| oid.0) {
        Some(16) => Family::Boolean,
        Some(20 | 21 | 23 | 26) => Family::Integer,
        Some(700 | 701 | 1700) => Family::Number,
        Some(18 | 19 | 25 | 1042 | 1043) => Family::Text,
        Some(2950) => Family::Uuid,
        Some(114 | 3802) => Family::Json,
        Some(17) => Family::Bytes,
        Some(1082) => Family::Date,
        Some(1083) => Family::Time,
        Some(1114) => Family::Timestamp,
        Some(1184) => Family::TimestampTz,
        _ if info.name().eq_ignore_ascii_case("citext") => Family::Text,
        _ => return None,
    })
}

/// How a column of this type is read as a contract type; `None`: it is not.
fn read_column(info: &PgTypeInfo, data_type: &DataType) -> Option<As> {
    let how = read_as(family(info)?, data_type)?;
    match (base(info).kind(), data_type) {
        (PgTypeKind::Array(inner), DataType::Array(item))
            if item.data_type == DataType::Binary && family(inner) == Some(Family::Bytes) =>
        {
            Some(As::Base64Items)
        }
        _ => (!reads_bytes(info, data_type)).then_some(how),
    }
}

/// Whether bytes would be read within an array or a composite type, where JSON has them as PostgreSQL's hex text.
fn reads_bytes(info: &PgTypeInfo, data_type: &DataType) -> bool {
    match (base(info).kind(), data_type) {
        (PgTypeKind::Array(inner), DataType::Array(item)) => reads_nested_bytes(inner, &item.data_type),
        (PgTypeKind::Composite(fields), DataType::Struct(columns)) => columns.iter().any(|column| {
            let field = fields.iter().find(|(name, _)| *name == column.name);
            field.is_some_and(|(_, inner)| reads_nested_bytes(inner, &column.data_type))
        }),
        _ => false,
    }
}

fn reads_nested_bytes(inner: &PgTypeInfo, data_type: &DataType) -> bool {
    // An array of several dimensions has the type of one with one.
    let mut innermost = data_type;
    while let DataType::Array(item) = innermost {
        innermost = &item.data_type;
    }
    family(inner) == Some(Family::Bytes) || reads_bytes(inner, data_type) || reads_bytes(inner, innermost)
}

/// How a column of this family is read as a contract type, whatever it is made of; `None`: it is not.
fn read_as(family: Family, data_type: &DataType) -> Option<As> {
    use DataType as D;
    let number = matches!(data_type, D::Int | D::Long | D::Float | D::Double | D::Decimal(..));
    let fits = match family {
        Family::Boolean => *data_type == D::Boolean,
        Family::Integer | Family::Number => number,
        // Text is read like that of a text file; bytes in it would have to be guessed.
        Family::Text => data_type.is_scalar() && *data_type != D::Binary,
        Family::Uuid => matches!(data_type, D::Uuid | D::String),
        Family::Json => matches!(data_type, D::Json | D::Array(_) | D::Map(..) | D::Struct(_)),
        Family::Bytes => *data_type == D::Binary,
        Family::Date => *data_type == D::Date,
        Family::Time => *data_type == D::Time,
        Family::Timestamp => *data_type == D::TimestampNtz,
        Family::TimestampTz => *data_type == D::Timestamp,
        Family::Array => matches!(data_type, D::Array(_)),
        Family::Composite => matches!(data_type, D::Struct(_)),
    };
    fits.then_some(match family {
        Family::Bytes => As::Base64,
        Family::Array | Family::Composite => As::Json,
        _ => As::Text,
    })
}

/// The condition that leaves out what was read before, in the column's own type, so that an index can serve it.
fn push_newer(statement: &mut Statement, column: &str, family: Family, value: &str, data_type: &DataType) -> bool {
    let column = quote(column);
    let cast = match (family, data_type) {
        (Family::Integer, DataType::Int | DataType::Long) => "bigint",
        (Family::Number | Family::Integer, _) => "numeric",
        (Family::Date, _) => "date",
        (Family::Timestamp, _) => "timestamp",
        (Family::TimestampTz, _) => "timestamptz",
        (Family::Text | Family::Uuid, DataType::String) => {
            // Bytes decide, as they do everywhere else; the database's own order depends on its locale.
            statement.push(&format!("({column}::text COLLATE \"C\") > "));
            statement.bind('$', value);
            return true;
        }
        // Text that is read as another type has another order.
        _ => return false,
    };
    statement.push(&format!("{column} > CAST(CAST("));
    statement.bind('$', value);
    statement.push(&format!(" AS text) AS {cast})"));
    true
}

fn bound<'q>(statement: &'q Statement) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let query = sqlx::query(&statement.sql).persistent(false);
    statement.values.iter().fold(query, |query, value| query.bind(value.as_str()))
}

async fn connect(database: &Database, url: &str) -> Result<PgConnection, Error> {
    // The URL's own error could quote it.
    let options: PgConnectOptions = url.parse().map_err(|_| {
        Error::new(ErrorCode::InvalidManifest, format!("the URL of {} cannot be read", database.name)).with_help(
            "write `postgres://user:password@host:port/database`; special characters in it need percent-encoding",
        )
    })?;
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let options = options.application_name("datamesh").disable_statement_logging();
    match tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await {
        Ok(connection) => connection.map_err(|error| database.error(&format!("connect to {place} for"), error)),
        Err(_) => Err(database.fail(format!("{place} does not answer")).with_help("check host and port")),
    }
}

/// A connection in a transaction that sees one moment and changes nothing, and the columns of the rows.
async fn begin(database: &Database, url: &str) -> Result<(PgConnection, Vec<(String, PgTypeInfo)>), Error> {
    let mut connection = connect(database, url).await?;
    for command in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "SET LOCAL TimeZone = 'UTC'",
        "SET LOCAL DateStyle = 'ISO, YMD'",
        "SET LOCAL extra_float_digits = 1",
    ] {
        connection.execute(command).await.map_err(|error| database.error("read", error))?;
    }
    let mut all = Statement::default();
    all.push("SELECT *");
    all.push_from('$', &database.rows);
    // Parameters are texts wherever they stand.
    let texts = vec![PgTypeInfo::with_oid(sqlx::postgres::types::Oid(25)); all.values.len()];
    let described = connection.prepare_with(&all.sql, &texts).await.map_err(|error| database.error("read", error))?;
    let present =
        described.columns().iter().map(|column| (column.name().to_owned(), column.type_info().clone())).collect();
    drop(described);
    Ok((connection, present))
}

/// The columns of the rows and the contract types that hold them.
pub(super) async fn columns(database: &Database, url: &str) -> Result<Vec<FoundColumn>, Error> {
    let (mut connection, present) = begin(database, url).await?;
    let mut found = Vec::new();
    for (name, info) in present {
        let mut evidence = format!("{} in the database", info.name().to_lowercase());
        let data_type = if is_numeric(&info) {
            let (data_type, seen) = numeric(database, &mut connection, &name).await?;
            evidence.push_str(&seen);
            data_type
        } else {
            held_by(&info).and_then(|data_type| match read_column(&info, &data_type) {
                Some(_) => Ok(data_type),
                None => {
                    Err("bytes are read as a column or an array of their own; let a `query:` select them".to_owned())
                }
            })
        };
        found.push(FoundColumn { name, data_type, evidence });
    }
    // The transaction changed nothing; a failure to say goodbye loses nothing.
    let _ = connection.close().await;
    Ok(found)
}

/// The number of PostgreSQL's numeric in pg_type.dat.
const NUMERIC: u32 = 1700;

fn is_numeric(info: &PgTypeInfo) -> bool {
    base(info).oid().is_some_and(|oid| oid.0 == NUMERIC)
}

/// The contract type that holds every value of a type of PostgreSQL.
fn held_by(info: &PgTypeInfo) -> Result<DataType, String> {
    let info = base(info);
    let none = || Err(format!("no contract type holds {}", info.name().to_lowercase()));
    Ok(match (family(info), info.kind()) {
        (Some(Family::Array), PgTypeKind::Array(item)) => {
            DataType::Array(Box::new(Column::anonymous("item", held_by(item)?)))
        }
        (Some(Family::Composite), PgTypeKind::Composite(fields)) => {
            let field = |(name, info): &(String, PgTypeInfo)| Ok(Column::anonymous(name, held_by(info)?));
            DataType::Struct(fields.iter().map(field).collect::<Result<_, String>>()?)
        }
        (Some(family), _) => match family {
            Family::Boolean => DataType::Boolean,
            Family::Integer if matches!(info.oid().map(|oid| oid.0), Some(21 | 23)) => DataType::Int,
            Family::Integer => DataType::Long,
            Family::Number if is_numeric(info) => {
                return Err("within an array or a composite type a numeric does not tell its digits".to_owned());
            }
            Family::Number if info.oid().is_some_and(|oid| oid.0 == 700) => DataType::Float,
            Family::Number => DataType::Double,
            Family::Text => DataType::String,
            Family::Uuid => DataType::Uuid,
            Family::Json => DataType::Json,
            Family::Bytes => DataType::Binary,
            Family::Date => DataType::Date,
            Family::Time => DataType::Time,
            Family::Timestamp => DataType::TimestampNtz,
            Family::TimestampTz => DataType::Timestamp,
            Family::Array | Family::Composite => return none(),
        },
        (None, _) => return none(),
    })
}

/// The decimal that holds a numeric column: as the table declares it, else as many digits behind the point as some value
/// has, and before it as many as fit; and what else there is to say of it.
async fn numeric(
    database: &Database,
    connection: &mut PgConnection,
    name: &str,
) -> Result<(Result<DataType, String>, String), Error> {
    const MOST: i64 = 38;
    // Digits behind the point, where no number tells.
    const USUAL: i64 = 9;
    let fail = |error| database.error("read", error);
    if let Rows::Table(parts) = &database.rows {
        let table: Vec<String> = parts.iter().map(|part| quote(part)).collect();
        // A domain has the digits, where its column does not.
        let sql = "SELECT CASE WHEN a.atttypmod < 0 THEN t.typtypmod ELSE a.atttypmod END FROM pg_attribute a \
                   JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = to_regclass($1) AND a.attname = $2";
        let declared = sqlx::query(sql).persistent(false).bind(table.join(".")).bind(name);
        if let Some(row) = declared.fetch_optional(&mut *connection).await.map_err(fail)? {
            let modifier: i32 = row.try_get(0).map_err(fail)?;
            if let Some(data_type) = digits(modifier) {
                return Ok((data_type, String::new()));
            }
        }
    }
    let column = quote(name);
    let mut seen = Statement::default();
    seen.push(&format!(
        "SELECT max(scale({column}))::int8, max(length(trunc(abs({column}))::text)) FILTER (WHERE {column} <> 'NaN' AND \
         {column}::text !~ 'Inf')::int8"
    ));
    seen.push_from('$', &database.rows);
    let row = bound(&seen).fetch_one(connection).await.map_err(fail)?;
    let scale: Option<i64> = row.try_get(0).map_err(fail)?;
    let before: i64 = row.try_get::<Option<i64>, _>(1).map_err(fail)?.unwrap_or(1);
    let evidence = match scale {
        Some(scale) => format!(" without digits of its own, at most {scale} behind the point seen"),
        None => " without digits of its own, no number seen".to_owned(),
    };
    let scale = scale.unwrap_or(USUAL);
    let data_type = match u8::try_from(scale) {
        Ok(digits) if scale + before <= MOST => Ok(DataType::Decimal(MOST as u8, digits)),
        _ => Err(format!(
            "a value has {before} digits before the point and one has {scale} behind it; a decimal has {MOST}"
        )),
    };
    Ok((data_type, evidence))
}

/// The decimal of a numeric with a type modifier; `None` where it has none (numeric.c).
fn digits(modifier: i32) -> Option<Result<DataType, String>> {
    let modifier = u32::try_from(modifier).ok()?.checked_sub(4)?;
    let precision = modifier >> 16 & 0xffff;
    // Eleven bits with a sign.
    let scale = ((modifier & 0x7ff) ^ 0x400).wrapping_sub(0x400) as i32;
    Some(match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision @ ..=38), Ok(scale)) if scale <= precision => Ok(DataType::Decimal(precision, scale)),
        _ => Err(format!("no contract type holds numeric({precision},{scale})")),
    })
}

/// Reads the rows in one transaction that sees one moment and changes nothing.
pub(super) async fn read(
    database: &Database,
    url: &str,
    layout: &TableLayout,
    mut sink: Sink<'_>,
) -> Result<(), ReadError> {
    let (mut connection, present) = begin(database, url).await?;

    let names: Vec<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(database
            .fail(format!("it has two columns `{}`", twice.1))
            .with_help("give one of them another name with AS")
            .into());
    }
    match_columns(layout, &names).map_err(ReadError::Missing)?;
    let mut selected = Vec::new();
    let mut expressions = Vec::new();
    let mut families = Vec::new();
    for (at, column) in layout.table.columns.iter().enumerate() {
        let Some((name, info)) = present.iter().find(|(name, _)| *name == column.name) else { continue };
        let family = family(info);
        let Some(how) = read_column(info, &column.data_type) else {
            let type_name = info.name().to_lowercase();
            let help = if reads_bytes(info, &column.data_type) {
                "bytes are read as a column or an array of their own; change the contract's type, or read a `query:` that \
                 selects them as one"
                    .to_owned()
            } else {
                format!(
                    "change the contract's type, or read a `query:` that casts it, such as `SELECT {}::text AS {}`",
                    quote(name),
                    quote(name)
                )
            };
            return Err(database
                .fail(format!("column `{name}` is {type_name} there, which is no {}", column.data_type))
                .with_help(help)
                .into());
        };
        let name = quote(name);
        expressions.push(match how {
            As::Text => format!("{name}::text"),
            As::Json => format!("to_json({name})::text"),
            As::Base64 => format!("translate(encode({name}, 'base64'), E'\\n', '')"),
            // Items of several dimensions are not made one: they stay what they are, which does not fit.
            As::Base64Items => format!(
                "CASE WHEN array_ndims({name}) > 1 THEN to_json({name}) WHEN {name} IS NOT NULL THEN to_json(ARRAY(\
                 SELECT translate(encode(item, 'base64'), E'\\n', '') FROM unnest({name}) WITH ORDINALITY \
                 AS items(item, place) ORDER BY place)) END::text"
            ),
        });
        selected.push(at);
        families.push(family);
    }
    if expressions.is_empty() {
        expressions.push("NULL::text".to_owned());
    }

    let mut statement = Statement::default();
    statement.push(&format!("SELECT {}", expressions.join(", ")));
    statement.push_from('$', &database.rows);
    statement.push_where('$', database.condition.as_ref(), |statement| {
        let Some(after) = &database.after else { return false };
        let found = selected.iter().zip(&families).find(|(at, _)| layout.table.columns[**at].name == after.column);
        let Some((at, Some(family))) = found else { return false };
        push_newer(statement, &after.column, *family, &after.value, &layout.table.columns[*at].data_type)
    });

    let absent: Vec<usize> = (0..layout.table.columns.len()).filter(|at| !selected.contains(at)).collect();
    let mut rows = bound(&statement).fetch(&mut connection);
    while let Some(row) = rows.try_next().await.map_err(|error| database.error("read", error))? {
        for (cell, column) in selected.iter().enumerate() {
            match row.try_get::<Option<&str>, _>(cell).map_err(|error| database.error("read", error))? {
                None => {
                    sink.note(*column, 0, &[]);
                    sink.batch.append_null(*column);
                }
                Some(text) => {
                    sink.note(*column, 1, text.as_bytes());
                    sink.batch.append_text(*column, text);
                }
            }
        }
        absent.iter().for_each(|column| sink.batch.append_null(*column));
        sink.end(|| {
            let cells = selected.iter().enumerate().map(|(cell, column)| {
                let text = row.try_get::<Option<&str>, _>(cell).ok().flatten();
                (layout.table.columns[*column].name.clone(), serde_json::Value::from(text))
            });
            serde_json::Value::Object(cells.collect()).to_string().into_bytes()
        });
        sink.flush_full().await?;
    }
    drop(rows);
    sink.finish().await?;
    // The transaction changed nothing; a failure to say goodbye loses nothing.
    let _ = connection.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_keep_their_meaning() {
        let parse = |text: &str| DataType::parse(text).expect(text);
        for (family, data_type, expected) in [
            (Family::Integer, "string", None),
            (Family::Integer, "decimal(10,2)", Some(As::Text)),
            (Family::Timestamp, "timestamp", None),
            (Family::Timestamp, "timestamp_ntz", Some(As::Text)),
            (Family::Json, "string", None),
            (Family::Json, "map<string,long>", Some(As::Text)),
            (Family::Array, "array<long>", Some(As::Json)),
            (Family::Bytes, "binary", Some(As::Base64)),
            (Family::Text, "date", Some(As::Text)),
            (Family::Boolean, "int", None),
        ] {
            assert_eq!(read_as(family, &parse(data_type)), expected, "{family:?} {data_type}");
        }
    }

    #[test]
    fn a_numerics_digits_are_read_from_its_modifier() {
        let of = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(digits(-1), None);
        assert_eq!(digits(of(10, 2)), Some(Ok(DataType::Decimal(10, 2))));
        assert_eq!(digits(of(38, 38)), Some(Ok(DataType::Decimal(38, 38))));
        for (precision, scale) in [(39, 0), (2, -3), (2, 5), (1000, 1000)] {
            let why = digits(of(precision, scale)).expect("digits").expect_err("refused");
            assert_eq!(why, format!("no contract type holds numeric({precision},{scale})"));
        }
    }

    #[test]
    fn a_watermark_is_compared_in_the_columns_type() {
        let check = |family, data_type: &str, expected: Option<&str>| {
            let mut statement = Statement::default();
            let pushed = push_newer(&mut statement, "w", family, "v", &DataType::parse(data_type).expect("a type"));
            assert_eq!(pushed.then_some(statement.sql.as_str()), expected);
        };
        check(Family::Integer, "long", Some("\"w\" > CAST(CAST($1 AS text) AS bigint)"));
        check(Family::TimestampTz, "timestamp", Some("\"w\" > CAST(CAST($1 AS text) AS timestamptz)"));
        check(Family::Text, "string", Some("(\"w\"::text COLLATE \"C\") > $1"));
        check(Family::Text, "long", None);
    }
}
