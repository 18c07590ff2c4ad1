//! What protects a column: `mask`, `classification` and `declassify`.

use datamesh_core::mask::{Mask, Truncation};
use datamesh_core::{DataType, Level};

use crate::governance::meant;
use crate::yaml::{Document, Kind, Node};

/// The words for how far something may be known, from everybody to few.
const CLASSIFICATIONS: [&str; 4] = ["public", "internal", "confidential", "restricted"];

/// The text of a mask that fits the column's type.
pub(super) fn read_mask(document: &mut Document<'_>, node: &Node, data_type: &DataType) -> Option<String> {
    let at = node.get("mask")?;
    // `mask: null` names the mask, though YAML reads no value; so it does where nothing is written at all.
    let text = match at.text()?.trim() {
        _ if at.is_null() && at.span.start == at.span.end => "",
        _ if at.is_null() => "null",
        text => text,
    };
    let mask = match Mask::parse(text) {
        Ok(mask) => mask,
        Err(why) => {
            let help = meant(text, fitting(data_type).iter().map(String::as_str), &fitting_text(data_type));
            document.error("invalid-mask", at.span, why, help);
            return None;
        }
    };
    if !mask.fits(data_type) {
        let message =
            format!("`mask: {mask}` does not fit a column of type {data_type}, which would not keep its type");
        document.error("mask-type", at.span, message, fitting_text(data_type));
        return None;
    }
    Some(text.to_owned())
}

/// Masks that a column of this type can have.
fn fitting(data_type: &DataType) -> Vec<String> {
    let some = [Mask::Null, Mask::Redact, Mask::Hash, Mask::Partial { first: 0, last: 4 }];
    let masks =
        some.into_iter().chain(Truncation::ALL.map(Mask::Truncate)).chain([Mask::Bucket("10".to_owned()), Mask::None]);
    masks.filter(|mask| mask.fits(data_type)).map(|mask| mask.to_string()).collect()
}

fn fitting_text(data_type: &DataType) -> String {
    let more = match data_type {
        DataType::Struct(_) => "; or mask its fields, below `columns:`",
        DataType::Array(_) => "; or mask its items, below `items:`",
        _ => "",
    };
    format!("what fits: {}{more}", fitting(data_type).join(", "))
}

/// Checks what a column says of its protection beside the mask.
pub(super) fn check(document: &mut Document<'_>, node: &Node) {
    check_classification(document, node);
    let Some(at) = node.get("declassify") else { return };
    let is_text = match &at.kind {
        Kind::Scalar { text, .. } => text.chars().any(char::is_alphabetic) && at.boolean().is_none() && !at.is_null(),
        // Reported by the table of keys.
        _ => return,
    };
    if !is_text {
        let message = "`declassify` gives no reason";
        let help = "write why the column carries none of the protection of what it is made of, such as `counts only`";
        document.error("reason-missing", at.span, message, help);
    }
}

/// Other words than the known four are kept: a house may have words of its own.
pub(super) fn check_classification(document: &mut Document<'_>, node: &Node) {
    let Some(at) = node.get("classification") else { return };
    let Some(word) = at.text().map(str::trim).filter(|_| !at.is_null()) else { return };
    if !CLASSIFICATIONS.iter().any(|known| known.eq_ignore_ascii_case(word)) {
        let help = meant(word, CLASSIFICATIONS.into_iter(), "there are: public, internal, confidential, restricted");
        let message = format!("`{}` is no known classification", word.escape_default());
        document.report(Level::Warning, "unknown-classification", at.span, message, help);
    }
}
