//! The types a column can have.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::Column;

/// A column's type, as the manifest declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// UTF-8 text.
    String,
    /// A UUID, shown as text.
    Uuid,
    /// A JSON document, kept as text.
    Json,
    /// True or false.
    Boolean,
    /// 32-bit signed integer.
    Int,
    /// 64-bit signed integer.
    Long,
    /// 32-bit IEEE 754.
    Float,
    /// 64-bit IEEE 754.
    Double,
    /// Exact decimal: precision 1 to 38, scale 0 to precision.
    Decimal(u8, u8),
    /// A calendar day.
    Date,
    /// A time of day, microseconds.
    Time,
    /// An instant, microseconds, UTC.
    Timestamp,
    /// A local date and time without a zone, microseconds.
    TimestampNtz,
    /// Bytes.
    Binary,
    /// A list; the item carries its own constraints.
    Array(Box<Column>),
    /// A map from key to value.
    Map(Box<DataType>, Box<Column>),
    /// Named fields.
    Struct(Vec<Column>),
}

/// The scalar type names, for messages and suggestions.
pub const SCALAR_TYPES: &[&str] = &[
    "string",
    "uuid",
    "json",
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "decimal(p,s)",
    "date",
    "time",
    "timestamp",
    "timestamp_ntz",
    "binary",
];

impl DataType {
    /// Parses a type such as `decimal(18,2)` or `array<struct<a: int>>`.
    ///
    /// `struct` alone is an empty struct and `array` alone an array of empty structs: their fields come from the
    /// manifest's `columns` and `items`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim(), depth: 0 };
        let data_type = parser.data_type()?;
        if !parser.rest.is_empty() {
            return Err(format!("`{}` is left over after `{data_type}`", parser.rest));
        }
        Ok(data_type)
    }

    /// Whether values of this type can be compared, sorted and used in a key.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Map(..) | Self::Struct(_))
    }

    /// Whether the type has numeric order: `minimum`, `maximum` and `multipleOf` make sense.
    pub fn is_numeric(&self) -> bool {
        matches!(self, Self::Int | Self::Long | Self::Float | Self::Double | Self::Decimal(..))
    }

    /// Whether the type is kept as text.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::String | Self::Uuid | Self::Json)
    }

    /// Whether the type has an order that `minimum` and `maximum` can use.
    pub fn is_ordered(&self) -> bool {
        self.is_numeric()
            || matches!(self, Self::Date | Self::Time | Self::Timestamp | Self::TimestampNtz | Self::String)
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
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

    fn expect(&mut self, symbol: char, after: &str) -> Result<(), String> {
        if self.eat(symbol) { Ok(()) } else { Err(format!("expected `{symbol}` in `{after}`")) }
    }

    fn data_type(&mut self) -> Result<DataType, String> {
        self.depth += 1;
        if self.depth > 32 {
            return Err("a type is nested at most 32 deep".into());
        }
        let word = self.word();
        let data_type = match word.to_ascii_lowercase().as_str() {
            "string" => DataType::String,
            "uuid" => DataType::Uuid,
            "json" => DataType::Json,
            "boolean" => DataType::Boolean,
            "int" => DataType::Int,
            "long" => DataType::Long,
            "float" => DataType::Float,
            "double" => DataType::Double,
            "date" => DataType::Date,
            "time" => DataType::Time,
            "timestamp" => DataType::Timestamp,
            "timestamp_ntz" => DataType::TimestampNtz,
            "binary" => DataType::Binary,
            "decimal" => self.decimal()?,
            "array" => {
                if self.eat('<') {
                    let item = self.data_type()?;
                    self.expect('>', "array<…>")?;
                    DataType::Array(Box::new(Column::anonymous("item", item)))
                } else {
                    DataType::Array(Box::new(Column::anonymous("item", DataType::Struct(Vec::new()))))
                }
            }
            "map" => {
                self.expect('<', "map<key, value>")?;
                let key = self.data_type()?;
                self.expect(',', "map<key, value>")?;
                let value = self.data_type()?;
                self.expect('>', "map<key, value>")?;
                if !key.is_scalar()
                    || matches!(key, DataType::Binary | DataType::Json | DataType::Float | DataType::Double)
                {
                    return Err(format!("a map's key cannot be {key}"));
                }
                DataType::Map(Box::new(key), Box::new(Column::anonymous("value", value)))
            }
            "struct" => self.fields()?,
            "" => return Err("expected a type".into()),
            _ => return Err(format!("unknown type `{word}`")),
        };
        self.depth -= 1;
        Ok(data_type)
    }

    fn decimal(&mut self) -> Result<DataType, String> {
        let usage = "write `decimal(precision, scale)` with 1 ≤ precision ≤ 38 and scale ≤ precision";
        let wrong = || usage.to_owned();
        if !self.eat('(') {
            return Err(wrong());
        }
        let precision: u8 = self.word().parse().map_err(|_| wrong())?;
        let scale: u8 = if self.eat(',') { self.word().parse().map_err(|_| wrong())? } else { 0 };
        if !self.eat(')') || precision == 0 || precision > 38 || scale > precision {
            return Err(wrong());
        }
        Ok(DataType::Decimal(precision, scale))
    }

    fn fields(&mut self) -> Result<DataType, String> {
        let mut fields: Vec<Column> = Vec::new();
        let mut names = std::collections::HashSet::new();
        if !self.eat('<') {
            return Ok(DataType::Struct(fields));
        }
        loop {
            let name = self.word();
            if name.is_empty() {
                return Err("expected a field name in `struct<name: type, …>`".into());
            }
            if !names.insert(name.to_ascii_lowercase()) {
                return Err(format!("field `{name}` is declared twice"));
            }
            self.expect(':', "struct<name: type, …>")?;
            let data_type = self.data_type()?;
            fields.push(Column::anonymous(&name, data_type));
            if !self.eat(',') {
                break;
            }
        }
        self.expect('>', "struct<…>")?;
        Ok(DataType::Struct(fields))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Uuid => f.write_str("uuid"),
            Self::Json => f.write_str("json"),
            Self::Boolean => f.write_str("boolean"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampNtz => f.write_str("timestamp_ntz"),
            Self::Binary => f.write_str("binary"),
            Self::Array(item) => write!(f, "array<{}>", item.data_type),
            Self::Map(key, value) => write!(f, "map<{key},{}>", value.data_type),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (index, field) in fields.iter().enumerate() {
                    write!(f, "{}{}: {}", if index > 0 { ", " } else { "" }, field.name, field.data_type)?;
                }
                f.write_str(">")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_round_trip() {
        for text in ["string", "decimal(18,2)", "array<string>", "map<string,long>", "struct<a: int, b: array<date>>"] {
            assert_eq!(DataType::parse(text).map(|t| t.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(DataType::parse(" decimal( 5 ) "), Ok(DataType::Decimal(5, 0)));
    }

    #[test]
    fn wrong_types_are_refused() {
        let deep = "array<".repeat(5000);
        for text in ["", "varchar", "decimal", "decimal(39,2)", "decimal(3,4)", "int x", "array<int", "map<int>", &deep]
        {
            assert!(DataType::parse(text).is_err(), "{text}");
        }
    }
}
