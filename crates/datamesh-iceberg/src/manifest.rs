//! Manifests of other writers, with headers that the `iceberg` crate understands.
//!
//! The crate finds partition values by the names of their fields, and holds those names to rules that other writers do
//! not keep: names that Avro does not know are written otherwise in the file's schema, and a void field may have the name
//! of a column, share its column with another one, or outlive it. Here the fields get names, and void ones columns, of
//! their own; what a field is has its id, and where it stands in the partition does not change.

use bytes::Bytes;
use serde_json::{Value, json};

/// Where the ids of columns for void fields begin: beyond those of tables, below the reserved ones.
const COLUMNS: i32 = 2_000_000_000;

/// A manifest that reads like `bytes`. What is no manifest is left for its reader to refuse.
pub(crate) fn readable(bytes: Bytes) -> Bytes {
    rewritten(&bytes).unwrap_or(bytes)
}

/// `None` where nothing needs to be changed, or where it is not known how.
fn rewritten(bytes: &[u8]) -> Option<Bytes> {
    let mut header = Header::read(bytes)?;
    let mut spec: Vec<Value> = serde_json::from_slice(header.get("partition-spec")?).ok()?;
    let mut schema: Value = serde_json::from_slice(header.get("schema")?).ok()?;
    let mut avro: Value = serde_json::from_slice(header.get("avro.schema")?).ok()?;
    let mut prefix = "partition_".to_owned();
    while ["schema", "avro.schema"].iter().any(|key| header.holds(key, &prefix)) {
        prefix.push('_');
    }
    let columns = schema.get_mut("fields")?.as_array_mut()?;
    let written = field_of(field_of(&mut avro, "data_file")?.get_mut("type")?, "partition")?;
    let written = written.get_mut("type")?.get_mut("fields")?.as_array_mut()?;
    let mut changed = false;
    for (field, column) in spec.iter_mut().zip(COLUMNS..) {
        let id = field.get("field-id").and_then(Value::as_i64);
        let own = format!("{prefix}{column}");
        if field.get("transform").and_then(Value::as_str) == Some("void") {
            // Always null: no field of the file has its new name. Only identity fields may be called like a column.
            columns.push(json!({ "id": column, "name": format!("{own}_column"), "required": false, "type": "int" }));
            field["source-id"] = json!(column);
        } else {
            let same = |avro: &&mut Value| id.is_some() && avro.get("field-id").and_then(Value::as_i64) == id;
            let Some(avro) = written.iter_mut().find(same) else { continue };
            if avro.get("name") == field.get("name") && field.get("name").and_then(Value::as_str).is_some_and(is_name) {
                continue;
            }
            avro["name"] = json!(own);
        }
        field["name"] = json!(own);
        changed = true;
    }
    if !changed {
        return None;
    }
    header.set("partition-spec", serde_json::to_vec(&spec).ok()?);
    header.set("schema", serde_json::to_vec(&schema).ok()?);
    header.set("avro.schema", serde_json::to_vec(&avro).ok()?);
    Some(header.write())
}

/// Whether Avro knows a name (Avro specification, "Names").
fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A field of an Avro record.
fn field_of<'a>(record: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let fields = record.get_mut("fields")?.as_array_mut()?;
    fields.iter_mut().find(|field| field.get("name").and_then(Value::as_str) == Some(name))
}

/// The header of an Avro file (Avro specification, "Object container files"), and what follows it.
struct Header<'a> {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    rest: &'a [u8],
}

const MAGIC: &[u8] = b"Obj\x01";

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let mut entries = Vec::new();
        loop {
            let count = read_long(&mut rest)?;
            if count == 0 {
                return Some(Self { entries, rest });
            }
            if count < 0 {
                // A negative count is followed by the size of its block.
                read_long(&mut rest)?;
            }
            for _ in 0..count.unsigned_abs() {
                entries.push((read_bytes(&mut rest)?, read_bytes(&mut rest)?));
            }
        }
    }

    fn get(&self, key: &str) -> Option<&[u8]> {
        self.entries.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn holds(&self, key: &str, text: &str) -> bool {
        self.get(key).is_some_and(|value| String::from_utf8_lossy(value).contains(text))
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        if let Some(entry) = self.entries.iter_mut().find(|(name, _)| name == key.as_bytes()) {
            entry.1 = value;
        }
    }

    fn write(&self) -> Bytes {
        let mut bytes = MAGIC.to_vec();
        write_long(&mut bytes, self.entries.len());
        for text in self.entries.iter().flat_map(|(key, value)| [key, value]) {
            write_long(&mut bytes, text.len());
            bytes.extend_from_slice(text);
        }
        write_long(&mut bytes, 0);
        bytes.extend_from_slice(self.rest);
        bytes.into()
    }
}

fn read_long(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn read_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(read_long(rest)?).ok()?;
    let (bytes, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(bytes.to_vec())
}

fn write_long(bytes: &mut Vec<u8>, value: usize) {
    let mut value = (value as u64) << 1;
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests;
