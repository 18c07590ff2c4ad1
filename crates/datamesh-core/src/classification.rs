//! Classifications: how much a product's or column's values must be kept from others.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::{Column, DataProduct, Table};

/// A classification, from the least to the most protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Classification {
    /// Nobody said anything.
    Unclassified,
    /// For everybody.
    Public,
    /// For everybody within.
    Internal,
    /// For those who need it: personal data at least.
    Confidential,
    /// For few.
    Restricted,
}

impl Classification {
    /// Every classification, from the least to the most protected.
    pub const ALL: [Self; 5] = [Self::Unclassified, Self::Public, Self::Internal, Self::Confidential, Self::Restricted];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unclassified => "unclassified",
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }

    /// Its rank: 0 is unclassified, 4 restricted.
    pub fn rank(self) -> u8 {
        self as u8
    }

    /// What a contract's word means. A word that is not known protects most: it was written to keep something from somebody.
    pub fn of(word: Option<&str>) -> Self {
        let Some(word) = word.map(str::trim).filter(|word| !word.is_empty()) else { return Self::Unclassified };
        Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(word)).unwrap_or(Self::Restricted)
    }
}

impl fmt::Display for Classification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What columns of a product are by default, by its contract.
pub fn of_product(contract: &DataProduct) -> Classification {
    Classification::of(contract.declared.get("classification").and_then(serde_json::Value::as_str))
}

/// What columns of a table are by default: its own, else the product's.
pub fn of_table(contract: &DataProduct, table: &Table) -> Classification {
    match table.declared.get("classification").and_then(serde_json::Value::as_str) {
        Some(word) => Classification::of(Some(word)),
        None => of_product(contract),
    }
}

/// What a column is said to be: its own, else what is around it.
pub fn declared(column: &Column, around: Classification) -> Classification {
    match column.declared.get("classification").and_then(serde_json::Value::as_str) {
        Some(word) => Classification::of(Some(word)),
        None => around,
    }
}

/// What a column is: personal data is confidential at least.
pub fn effective(column: &Column, around: Classification) -> Classification {
    let declared = declared(column, around);
    if column.pii { declared.max(Classification::Confidential) } else { declared }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::DataType;

    #[test]
    fn personal_data_is_confidential_at_least() {
        let mut column = Column::anonymous("email", DataType::String);
        assert_eq!(effective(&column, Classification::Public), Classification::Public);
        column.pii = true;
        assert_eq!(effective(&column, Classification::Public), Classification::Confidential);
        column.declared.insert("classification".into(), "Restricted".into());
        assert_eq!(effective(&column, Classification::Public), Classification::Restricted);
        column.declared.insert("classification".into(), "internal".into());
        assert_eq!(
            (declared(&column, Classification::Public), effective(&column, Classification::Public)),
            (Classification::Internal, Classification::Confidential)
        );
    }

    #[test]
    fn an_unknown_word_protects_most() {
        assert_eq!(Classification::of(Some("secret")), Classification::Restricted);
        assert_eq!(Classification::of(None), Classification::Unclassified);
    }
}
