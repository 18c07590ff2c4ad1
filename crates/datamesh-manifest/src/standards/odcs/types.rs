//! Types: our one word against the standard's logical and physical type.

use datamesh_core::DataType;

use crate::standards::tree::{Map, Tree};

/// Stands for a type that the document does not tell; our reader refuses it.
pub(crate) const TODO: &str = "TODO";

/// Our type for a property. `item` is the type of an array's items, and `fields` whether the property has properties.
pub(super) fn read(theirs: &Map, item: Option<&str>, fields: bool) -> String {
    let text = |key: &str| theirs.get(key).and_then(Tree::as_text);
    let (logical, physical) = (text("logicalType"), text("physicalType"));
    let found = physical.and_then(|physical| from_physical(physical, theirs));
    match logical {
        Some("array") => match (item, &found) {
            (Some(item), _) => format!("array<{item}>"),
            (None, Some(found)) if matches!(DataType::parse(found), Ok(DataType::Array(_))) => found.clone(),
            _ => TODO.to_owned(),
        },
        Some("map") => map(theirs).unwrap_or_else(|| TODO.to_owned()),
        Some("vector") => match text("logicalTypeOptions.elementType") {
            Some("float64") => "array<double>".to_owned(),
            Some("int8" | "uint8" | "binary") => "array<int>".to_owned(),
            _ => "array<float>".to_owned(),
        },
        Some("object") if fields => "struct".to_owned(),
        Some(logical) => match found.filter(|found| fits(logical, found)) {
            Some(found) => found,
            None => from_logical(logical, theirs).to_owned(),
        },
        None if fields => "struct".to_owned(),
        None => match (item, found) {
            (Some(item), _) => format!("array<{item}>"),
            (None, Some(found)) if found != "struct" => found,
            _ => TODO.to_owned(),
        },
    }
}

/// What the standard says for our type, but for the children of an array.
pub(super) fn write(our_type: &str) -> Map {
    let mut theirs = Map::new();
    let Ok(data_type) = DataType::parse(our_type) else { return theirs };
    let logical = logical(&data_type);
    theirs.put("logicalType", logical);
    match &data_type {
        DataType::Map(..) => {
            if let Some((key, value)) = arguments(our_type) {
                let both = [("key", key), ("value", value)];
                let pair: Map =
                    both.into_iter().map(|(name, side)| (name.to_owned(), Tree::Map(inner(side)))).collect();
                theirs.put("map", pair);
            }
        }
        DataType::Array(_) => {}
        DataType::Struct(fields) if fields.is_empty() => {}
        _ => {
            // The physical type is only told where the logical one does not tell ours.
            let mut bare = Map::new();
            bare.put("logicalType", logical);
            let wanted = our_type.trim();
            if read(&bare, None, false) != wanted {
                theirs.put("physicalType", wanted);
            }
        }
    }
    theirs
}

/// A whole type as an item, key or value: all its parts below it.
pub(super) fn inner(our_type: &str) -> Map {
    let mut theirs = write(our_type);
    if let Some(item) = item(our_type) {
        theirs.put("items", inner(item));
    }
    theirs
}

/// The text of an array's item type.
pub(super) fn item(our_type: &str) -> Option<&str> {
    let rest = our_type.trim();
    let inner = strip_word(rest, "array")?.strip_prefix('<')?.strip_suffix('>')?;
    Some(inner.trim())
}

/// The two arguments of a map's type.
fn arguments(our_type: &str) -> Option<(&str, &str)> {
    let inner = strip_word(our_type.trim(), "map")?.strip_prefix('<')?.strip_suffix('>')?;
    let mut depth = 0_i32;
    for (at, character) in inner.char_indices() {
        match character {
            '<' | '(' => depth += 1,
            '>' | ')' => depth -= 1,
            ',' if depth == 0 => return Some((inner[..at].trim(), inner[at + 1..].trim())),
            _ => {}
        }
    }
    None
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| text[word.len()..].trim_start())
}

/// A map's type from its key and value, as far as one line can say it.
fn map(theirs: &Map) -> Option<String> {
    let sides = theirs.get("map")?;
    let side = |name: &str| sides.get(name).and_then(Tree::as_map).and_then(one_line);
    let text = format!("map<{},{}>", side("key")?, side("value")?);
    DataType::parse(&text).is_ok().then_some(text)
}

/// A property's type with all its parts on one line.
pub(super) fn one_line(theirs: &Map) -> Option<String> {
    let mut flat = theirs.clone();
    if let Some(options) = flat.take_map("logicalTypeOptions") {
        for (key, value) in options {
            flat.put(format!("logicalTypeOptions.{key}"), value);
        }
    }
    let fields = theirs.get("properties").and_then(Tree::as_list).unwrap_or_default();
    if !fields.is_empty() {
        let mut parts = Vec::new();
        for field in fields {
            let name = field.get("name").and_then(Tree::as_text)?;
            parts.push(format!("{name}: {}", one_line(field.as_map()?)?));
        }
        return Some(format!("struct<{}>", parts.join(", ")));
    }
    let item = theirs.get("items").and_then(Tree::as_map).map(one_line);
    let item = match item {
        Some(item) => Some(item?),
        None => None,
    };
    Some(read(&flat, item.as_deref(), false)).filter(|text| text != TODO && text != "struct")
}

fn logical(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::String | DataType::Uuid | DataType::Binary => "string",
        DataType::Json | DataType::Struct(_) => "object",
        DataType::Boolean => "boolean",
        DataType::Int | DataType::Long => "integer",
        DataType::Float | DataType::Double | DataType::Decimal(..) => "number",
        DataType::Date => "date",
        DataType::Time => "time",
        DataType::Timestamp | DataType::TimestampNtz => "timestamp",
        DataType::Array(_) => "array",
        DataType::Map(..) => "map",
    }
}

/// Whether a physical type says more about a logical one, rather than something else.
fn fits(said: &str, found: &str) -> bool {
    let Ok(data_type) = DataType::parse(found) else { return false };
    let physical = logical(&data_type);
    match said {
        // Before 3.1 a date was also an instant or a time.
        "date" => matches!(physical, "date" | "time" | "timestamp"),
        "number" => matches!(physical, "number" | "integer"),
        "integer" => physical == "integer" || matches!(data_type, DataType::Decimal(_, 0)),
        "string" => matches!(data_type, DataType::String | DataType::Uuid | DataType::Binary | DataType::Json),
        "object" => {
            matches!(&data_type, DataType::Json) || matches!(&data_type, DataType::Struct(fields) if !fields.is_empty())
        }
        other => other == physical,
    }
}

fn from_logical(logical: &str, theirs: &Map) -> &'static str {
    let option = |key: &str| theirs.get(&format!("logicalTypeOptions.{key}"));
    let format = option("format").and_then(Tree::as_text);
    match logical {
        "string" => "string",
        "boolean" => "boolean",
        "date" => "date",
        "time" => "time",
        "timestamp" if option("timezone").and_then(Tree::as_bool) == Some(false) => "timestamp_ntz",
        "timestamp" => "timestamp",
        "integer" => match format {
            Some("i8" | "i16" | "i32" | "u8" | "u16") => "int",
            _ => "long",
        },
        "number" if format == Some("f32") => "float",
        "number" => "double",
        "object" => "json",
        _ => TODO,
    }
}

/// Our word for a database's word. What databases disagree about is left to the logical type.
fn from_physical(physical: &str, theirs: &Map) -> Option<String> {
    let text = physical.trim();
    let folded = text.to_ascii_lowercase();
    let (word, arguments) = match folded.split_once('(') {
        Some((word, rest)) => {
            (word.trim(), rest.split_once(')').map(|(arguments, after)| (arguments.trim(), after.trim())))
        }
        None => (folded.as_str(), None),
    };
    let zoned = theirs.get("logicalTypeOptions.timezone").and_then(Tree::as_bool);
    let after = arguments.map_or("", |(_, after)| after);
    Some(
        match word {
            "string" | "varchar" | "varchar2" | "char" | "character" | "character varying" | "nvarchar" | "nchar"
            | "text" | "clob" | "bpchar" | "tinytext" | "mediumtext" | "longtext" => "string",
            "uuid" | "uniqueidentifier" => "uuid",
            "json" | "jsonb" | "variant" | "super" => "json",
            "boolean" | "bool" => "boolean",
            "int" | "integer" | "int4" | "int32" | "smallint" | "int2" | "int16" | "tinyint" | "mediumint" => "int",
            "bigint" | "long" | "int64" | "bigserial" => "long",
            "float" | "real" | "float4" | "float32" => "float",
            "double" | "double precision" | "float8" | "float64" => "double",
            "decimal" | "numeric" | "number" => {
                let (precision, scale) = arguments?.0.split_once(',').unwrap_or((arguments?.0, "0"));
                let text = format!("decimal({},{})", precision.trim(), scale.trim());
                return DataType::parse(&text).is_ok().then_some(text);
            }
            "date" => "date",
            "time" | "time without time zone" => "time",
            "timestamptz" | "timestamp_tz" | "timestamp_ltz" | "timestamp with time zone" | "datetimeoffset" => {
                "timestamp"
            }
            "timestamp" if zoned == Some(true) || after == "with time zone" => "timestamp",
            "timestamp" | "timestamp_ntz" | "timestamp without time zone" | "datetime" | "datetime2" => "timestamp_ntz",
            "binary" | "varbinary" | "bytea" | "blob" | "bytes" => "binary",
            "struct" | "record" | "row" => "struct",
            _ => return DataType::parse(text).is_ok().then(|| text.to_owned()),
        }
        .to_owned(),
    )
}
