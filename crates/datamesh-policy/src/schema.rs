//! The schema that policies are checked against, from the model and the attributes that principals are declared to have.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use datamesh_core::access::AttributeType;

/// The role of those who run the platform. It is there without being declared.
pub const MESH_OWNER: &str = "mesh-owner";

const FIXED: &str = include_str!("schema.cedarschema");

/// The schema's text, in Cedar's schema language. Every attribute of a principal is optional: somebody whom the mesh does
/// not know has none, so that a policy asks `principal has country` first.
pub fn schema_text(attributes: &BTreeMap<String, AttributeType>) -> String {
    let mut own = String::new();
    for (name, attribute_type) in attributes {
        let cedar = match attribute_type {
            AttributeType::String => "String",
            AttributeType::Long => "Long",
            AttributeType::Boolean => "Bool",
            AttributeType::Strings => "Set<String>",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(own, "    {}?: {cedar},", quoted(name));
    }
    format!(
        "// A person.\nentity User in [Team, Role] = {{\n{own}}};\n\n// A program.\nentity Service in [Team, Role] = {{\n{own}}};\n\n{FIXED}"
    )
}

/// A text as a literal of Cedar.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}
