//! The column types of warehouses, in our words.

use datamesh_core::DataType;

/// How deep a type is read.
const MAX_DEPTH: usize = 24;

/// Our type for a warehouse's, and the length that it bounds texts by. `None` for what has no counterpart, and for
/// `numeric` where the warehouse takes any precision: a guess could lose digits.
///
/// `adapter` is dbt's `adapter_type`: `timestamp`, `float` and bare `numeric` mean different things to warehouses.
pub(super) fn data_type(text: &str, adapter: &str) -> Option<(DataType, Option<u64>)> {
    let mut parser = Parser { rest: text.trim(), adapter, depth: 0, length: None };
    let name = parser.data_type()?;
    let length = if matches!(name.as_str(), "string") { parser.length } else { None };
    if !parser.rest.is_empty() {
        return None;
    }
    DataType::parse(&name).ok().map(|data_type| (data_type, length))
}

struct Parser<'a> {
    rest: &'a str,
    adapter: &'a str,
    depth: usize,
    /// The length of the text type that was read last.
    length: Option<u64>,
}

impl Parser<'_> {
    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let word = self.rest[..end].to_owned();
        self.rest = self.rest[end..].trim_start();
        word
    }

    fn eat(&mut self, symbol: char) -> bool {
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    /// Takes words that follow a type's first one, whatever their case.
    fn eat_words(&mut self, words: &str) -> bool {
        let before = self.rest;
        for word in words.split(' ') {
            if !self.word().eq_ignore_ascii_case(word) {
                self.rest = before;
                return false;
            }
        }
        true
    }

    fn numbers(&mut self) -> Option<Vec<u64>> {
        let mut numbers = Vec::new();
        if self.rest.starts_with('(') {
            self.eat('(');
            loop {
                let word = self.word();
                match word.parse() {
                    Ok(number) => numbers.push(number),
                    Err(_) if word.eq_ignore_ascii_case("max") => {}
                    Err(_) => return None,
                }
                // Oracle and Snowflake: varchar(20 char).
                if !self.rest.starts_with([',', ')']) {
                    self.word();
                }
                if !self.eat(',') {
                    break;
                }
            }
            if !self.eat(')') {
                return None;
            }
        }
        Some(numbers)
    }

    /// The type in our spelling.
    fn data_type(&mut self) -> Option<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut name = self.single()?;
        // PostgreSQL and DuckDB: `integer[]`, `integer[3]`.
        while self.eat('[') {
            self.word();
            if !self.eat(']') {
                return None;
            }
            name = format!("array<{name}>");
        }
        self.depth -= 1;
        Some(name)
    }

    fn is(&self, adapters: &[&str]) -> bool {
        adapters.contains(&self.adapter)
    }

    fn single(&mut self) -> Option<String> {
        let word = self.word().to_ascii_lowercase();
        let scalar = match word.as_str() {
            "string" | "varchar" | "char" | "character" | "nvarchar" | "nchar" | "varchar2" | "nvarchar2"
            | "bpchar" | "text" | "citext" | "clob" | "tinytext" | "mediumtext" | "longtext" => {
                self.eat_words("varying");
                self.length = self.numbers()?.first().copied();
                return Some("string".to_owned());
            }
            "uuid" | "uniqueidentifier" => "uuid",
            "json" | "jsonb" | "variant" | "super" => "json",
            "bool" | "boolean" => "boolean",
            // Snowflake and BigQuery have one kind of whole number, of 64 bits or more.
            "int" | "integer" | "smallint" | "tinyint" | "byteint" if self.is(&["snowflake", "bigquery"]) => "long",
            "tinyint" | "smallint" | "int" | "integer" | "int2" | "int4" | "int16" | "int32" | "mediumint"
            | "short" | "byte" | "serial" | "smallserial" | "utinyint" | "usmallint" => "int",
            "bigint" | "int8" | "int64" | "long" | "bigserial" | "uinteger" => "long",
            "ubigint" => "decimal(20,0)",
            "hugeint" => "decimal(38,0)",
            "numeric" | "decimal" | "dec" | "number" | "bigdecimal" | "bignumeric" => return self.decimal(&word),
            "real" | "float4" | "float32" => "float",
            "float" => match self.numbers()?.first() {
                Some(..=24) => "float",
                None if self.is(&["databricks", "spark", "duckdb", "trino", "athena"]) => "float",
                _ => "double",
            },
            "double" => {
                self.eat_words("precision");
                "double"
            }
            "float8" | "float64" => "double",
            "date" => "date",
            "time" => {
                self.numbers()?;
                if self.eat_words("with time zone") {
                    return None;
                }
                self.eat_words("without time zone");
                "time"
            }
            "timestamp" => {
                self.numbers()?;
                let zoned = self.is(&["bigquery", "databricks", "spark"]);
                if self.eat_words("with time zone") || self.eat_words("with local time zone") {
                    "timestamp"
                } else if self.eat_words("without time zone") || !zoned {
                    "timestamp_ntz"
                } else {
                    "timestamp"
                }
            }
            "timestamptz" | "timestamp_tz" | "timestamp_ltz" | "timestampltz" | "datetimeoffset" => "timestamp",
            "timestamp_ntz" | "timestampntz" | "datetime" | "datetime2" | "timestamp_s" | "timestamp_ms"
            | "timestamp_us" => "timestamp_ntz",
            "bytes" | "bytea" | "binary" | "varbinary" | "blob" | "varbyte" => "binary",
            "array" | "list" => return self.array(),
            "map" => return self.map(),
            "struct" | "record" | "row" | "object" => return self.fields(),
            _ => return None,
        };
        self.numbers()?;
        Some(scalar.to_owned())
    }

    fn decimal(&mut self, word: &str) -> Option<String> {
        let (precision, scale) = match self.numbers()?.as_slice() {
            [precision, scale] => (*precision, *scale),
            [precision] => (*precision, 0),
            _ => match self.adapter {
                "bigquery" if word != "bignumeric" && word != "bigdecimal" => (38, 9),
                "snowflake" => (38, 0),
                "redshift" => (18, 0),
                "databricks" | "spark" => (10, 0),
                "duckdb" => (18, 3),
                _ => return None,
            },
        };
        (precision <= 38).then(|| format!("decimal({precision},{scale})"))
    }

    /// What closes a list of types, where one is opened: `<…>` or `(…)`.
    fn open(&mut self) -> Option<char> {
        if self.eat('<') {
            Some('>')
        } else if self.eat('(') {
            Some(')')
        } else {
            None
        }
    }

    fn array(&mut self) -> Option<String> {
        let Some(close) = self.open() else {
            // Snowflake's untyped array.
            return Some("json".to_owned());
        };
        let item = self.data_type()?;
        self.eat(close).then(|| format!("array<{item}>"))
    }

    fn map(&mut self) -> Option<String> {
        let close = self.open()?;
        let key = self.data_type()?;
        if !self.eat(',') {
            return None;
        }
        let value = self.data_type()?;
        self.eat(close).then(|| format!("map<{key},{value}>"))
    }

    fn fields(&mut self) -> Option<String> {
        let Some(close) = self.open() else {
            return Some(if self.is(&["snowflake"]) { "json" } else { "struct" }.to_owned());
        };
        let mut fields = Vec::new();
        loop {
            let quoted = self.eat('"') || self.eat('`');
            let name = self.word();
            if quoted && !(self.eat('"') || self.eat('`')) || name.is_empty() {
                return None;
            }
            self.eat(':');
            let data_type = self.data_type()?;
            if self.eat_words("not null") {
                // Said by the type only; our types have no such word.
            }
            fields.push(format!("{name}: {data_type}"));
            if !self.eat(',') {
                break;
            }
        }
        self.eat(close).then(|| format!("struct<{}>", fields.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::data_type;

    #[test]
    fn types_of_warehouses_are_ours() {
        let cases = [
            ("varchar", "postgres", "string"),
            ("character varying(20)", "postgres", "string"),
            ("VARCHAR(16777216)", "snowflake", "string"),
            ("text", "duckdb", "string"),
            ("jsonb", "postgres", "json"),
            ("VARIANT", "snowflake", "json"),
            ("integer", "postgres", "int"),
            ("INTEGER", "snowflake", "long"),
            ("INT64", "bigquery", "long"),
            ("int8", "redshift", "long"),
            ("NUMBER(38,0)", "snowflake", "decimal(38,0)"),
            ("number", "snowflake", "decimal(38,0)"),
            ("numeric", "bigquery", "decimal(38,9)"),
            ("numeric(10, 2)", "postgres", "decimal(10,2)"),
            ("decimal(5)", "databricks", "decimal(5,0)"),
            ("float", "snowflake", "double"),
            ("float", "databricks", "float"),
            ("double precision", "postgres", "double"),
            ("timestamp", "bigquery", "timestamp"),
            ("timestamp", "snowflake", "timestamp_ntz"),
            ("timestamp", "databricks", "timestamp"),
            ("timestamp without time zone", "postgres", "timestamp_ntz"),
            ("timestamp(6) with time zone", "trino", "timestamp"),
            ("TIMESTAMP_LTZ", "snowflake", "timestamp"),
            ("datetime", "bigquery", "timestamp_ntz"),
            ("timestamptz", "redshift", "timestamp"),
            ("bytea", "postgres", "binary"),
            ("text[]", "postgres", "array<string>"),
            ("INTEGER[][]", "duckdb", "array<array<int>>"),
            ("ARRAY<STRING>", "bigquery", "array<string>"),
            ("STRUCT<a INT64, b ARRAY<DATE>>", "bigquery", "struct<a: long, b: array<date>>"),
            ("struct<a:int,b:map<string,double>>", "databricks", "struct<a: int, b: map<string,double>>"),
            ("STRUCT(\"a\" INTEGER, b VARCHAR)", "duckdb", "struct<a: int, b: string>"),
            ("super", "redshift", "json"),
            ("array", "snowflake", "json"),
        ];
        for (theirs, adapter, ours) in cases {
            let found = data_type(theirs, adapter).map(|(data_type, _)| data_type.to_string());
            assert_eq!(found.as_deref(), Some(ours), "{theirs} of {adapter}");
        }
        assert_eq!(data_type("varchar(20)", "postgres").and_then(|(_, length)| length), Some(20));
        for unknown in ["", "geography", "numeric", "interval", "timetz", "int(", "struct<", "map<int>", "int x"] {
            assert_eq!(data_type(unknown, "postgres"), None, "{unknown}");
        }
        assert_eq!(data_type(&"array<".repeat(5000), "bigquery"), None);
    }
}
