//! The rule table: every kind of change, which way it moves the promise, and the step of the version it needs.
//!
//! The verdicts are those of `specs/odcs/breaking-oracle`, with one exception, which is marked `protects`: what protects
//! people (classification, personal data, masks, row filters) binds every major version at once. It cannot wait for
//! consumers to move to a new major, so it needs no more than a minor step although they see less than before.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The step of a semantic version that a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bump {
    /// Nobody who relies on the contract notices.
    Patch,
    /// Consumers get more than before.
    Minor,
    /// The direction cannot be told from the text: major, unless somebody who knows acknowledges that nothing breaks.
    Review,
    /// Consumers get less than they were promised.
    Major,
}

impl Bump {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Review => "review",
            Self::Major => "major",
        }
    }
}

impl fmt::Display for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which way a change moves what consumers are promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Less is promised.
    Loosens,
    /// More is promised.
    Tightens,
    /// The promise is the same.
    Neutral,
    /// It is another promise, or the text does not tell.
    Undetermined,
}

impl Direction {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loosens => "loosens",
            Self::Tightens => "tightens",
            Self::Neutral => "neutral",
            Self::Undetermined => "undetermined",
        }
    }
}

/// One kind of change.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable kebab-case id.
    pub id: &'static str,
    /// What the rule says, one sentence.
    pub about: &'static str,
    /// Which way it moves the promise.
    pub direction: Direction,
    /// The step of the version it needs.
    pub bump: Bump,
    /// Whether it protects people, and so binds every major version at once and needs no new one.
    pub protects: bool,
}

impl Rule {
    /// The rule with this id.
    pub fn find(id: &str) -> Option<&'static Self> {
        ALL.iter().find(|rule| rule.id == id).copied()
    }
}

impl Serialize for &'static Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id)
    }
}

macro_rules! rules {
    (@protects) => { false };
    (@protects protects) => { true };
    ($($name:ident $id:literal $direction:ident $bump:ident $($protects:ident)? : $about:literal;)*) => {
        $(
            #[doc = $about]
            pub static $name: Rule = Rule {
                id: $id,
                about: $about,
                direction: Direction::$direction,
                bump: Bump::$bump,
                protects: rules!(@protects $($protects)?),
            };
        )*
        /// Every rule, by the part of the contract it is about.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    // The product.
    PRODUCT_RENAMED "product-renamed" Undetermined Major: "the product has another name, so queries no longer find it";
    PRODUCT_MOVED "product-moved" Undetermined Major: "the product belongs to another domain, so queries no longer find it";
    OWNER_CHANGED "owner-changed" Neutral Minor: "another team answers for it";
    DESCRIPTION_CHANGED "description-changed" Neutral Patch: "prose was changed";
    TAGS_CHANGED "tags-changed" Neutral Patch: "the words to find it by were changed";
    METADATA_CHANGED "metadata-changed" Neutral Patch: "something about the product was changed that promises nothing";
    CONTACT_CHANGED "contact-changed" Neutral Patch: "the owner is reached in another way";
    PRICE_CHANGED "price-changed" Neutral Minor: "the price was changed";
    INPUTS_CHANGED "inputs-changed" Neutral Patch: "the product is made of other inputs";
    STATUS_CHANGED "status-changed" Neutral Minor: "the product moved on in its life: draft, active, deprecated, retired";
    STATUS_WITHDRAWN "status-withdrawn" Loosens Major: "an active product became a draft again, or was retired without having been deprecated";
    UNKNOWN_CHANGED "unclassified-change" Undetermined Review: "a key was changed that no rule knows";
    // Tables.
    TABLE_ADDED "table-added" Tightens Minor: "there is a further table";
    TABLE_REMOVED "table-removed" Loosens Major: "a table is gone";
    TABLE_KIND_CHANGED "table-kind-changed" Undetermined Major: "a table became a view, or a view a table";
    PHYSICAL_NAME_CHANGED "physical-name-changed" Undetermined Major: "the stored object has another name, so readers of the storage no longer find it";
    WRITE_MODE_CHANGED "write-mode-changed" Neutral Patch: "publications change the table in another way";
    PARTITIONING_CHANGED "partitioning-changed" Neutral Patch: "the table is partitioned in another way";
    SORTING_CHANGED "sorting-changed" Neutral Patch: "the table's files are sorted in another way";
    TRANSFORM_CHANGED "transform-changed" Neutral Patch: "the table's rows are made by another query";
    SOURCE_CHANGED "source-changed" Neutral Patch: "the table's rows are read from elsewhere, or in another way";
    QUARANTINE_RAISED "quarantine-limit-raised" Loosens Major: "a greater share of the rows may be missing";
    QUARANTINE_LOWERED "quarantine-limit-lowered" Tightens Minor: "a smaller share of the rows may be missing";
    // Columns.
    COLUMN_ADDED "column-added" Tightens Minor: "there is a further column or field";
    COLUMN_REMOVED "column-removed" Loosens Major: "a column or field is gone";
    COLUMN_RENAMED "column-renamed" Undetermined Major: "a column or field has another name, so queries no longer find it";
    COLUMNS_REORDERED "columns-reordered" Neutral Patch: "columns stand in another order";
    DEPRECATION_CHANGED "deprecation-changed" Neutral Minor: "consumers are told to move away from a table or column, or need no longer";
    TYPE_WIDENED "type-widened" Neutral Minor: "a wider type that holds every former value the same (int to long, float to double, a decimal of more digits)";
    TYPE_CHANGED "type-changed" Undetermined Major: "another type: what reads the column may fail or read another value";
    PHYSICAL_TYPE_CHANGED "physical-type-changed" Undetermined Major: "the stored type is another one";
    REQUIRED_LOOSENED "required-loosened" Loosens Major: "null is possible now";
    REQUIRED_TIGHTENED "required-tightened" Tightens Minor: "null is no longer possible";
    DEFAULT_CHANGED "default-changed" Neutral Minor: "rows written before the column was added show another value";
    LINEAGE_CHANGED "lineage-changed" Neutral Patch: "the column is declared to come from elsewhere";
    // Keys and references.
    PRIMARY_KEY_ADDED "primary-key-added" Tightens Minor: "rows have a primary key now";
    PRIMARY_KEY_REMOVED "primary-key-removed" Loosens Major: "rows have no primary key any more";
    PRIMARY_KEY_CHANGED "primary-key-changed" Undetermined Major: "rows are told apart by other columns";
    UNIQUE_ADDED "unique-added" Tightens Minor: "values are unique now";
    UNIQUE_REMOVED "unique-removed" Loosens Major: "values may repeat now";
    UNIQUE_RESTATED "unique-restated" Neutral Patch: "a key was added or removed that another key implies";
    REFERENCE_ADDED "reference-added" Tightens Minor: "rows refer to rows that exist";
    REFERENCE_REMOVED "reference-removed" Loosens Major: "rows may refer to rows that do not exist";
    REFERENCE_NOTED "reference-noted" Neutral Patch: "a reference that only warns was changed";
    // Constraints on values.
    MINIMUM_LOOSENED "minimum-loosened" Loosens Major: "smaller values are possible now";
    MINIMUM_TIGHTENED "minimum-tightened" Tightens Minor: "values are larger than they had to be before";
    MAXIMUM_LOOSENED "maximum-loosened" Loosens Major: "larger values are possible now";
    MAXIMUM_TIGHTENED "maximum-tightened" Tightens Minor: "values are smaller than they had to be before";
    BOUND_CHANGED "bound-changed" Undetermined Review: "a bound was changed in a way that cannot be compared";
    CONSTRAINT_RESTATED "constraint-restated" Neutral Patch: "the same constraint is written in another way";
    MULTIPLE_OF_LOOSENED "multiple-of-loosened" Loosens Major: "values on a finer grid are possible now";
    MULTIPLE_OF_TIGHTENED "multiple-of-tightened" Tightens Minor: "values lie on a coarser grid";
    MULTIPLE_OF_CHANGED "multiple-of-changed" Undetermined Review: "values lie on another grid";
    LENGTH_LOOSENED "length-loosened" Loosens Major: "longer or shorter values are possible now";
    LENGTH_TIGHTENED "length-tightened" Tightens Minor: "fewer lengths are possible";
    ENUM_VALUE_ADDED "enum-value-added" Loosens Major: "a value is possible that consumers do not know";
    ENUM_VALUE_REMOVED "enum-value-removed" Tightens Minor: "a value is no longer possible";
    ENUM_ADDED "enum-added" Tightens Minor: "the possible values are listed now";
    ENUM_REMOVED "enum-removed" Loosens Major: "any value is possible now";
    PATTERN_ADDED "pattern-added" Tightens Minor: "values match a pattern now";
    PATTERN_REMOVED "pattern-removed" Loosens Major: "values need not match a pattern any more";
    PATTERN_CHANGED "pattern-changed" Undetermined Review: "values match another pattern; which of the two admits more cannot be told";
    FORMAT_ADDED "format-added" Tightens Minor: "values have a format now";
    FORMAT_REMOVED "format-removed" Loosens Major: "values need not have a format any more";
    FORMAT_CHANGED "format-changed" Undetermined Major: "values are written in another format";
    COMPLETE_IF_ADDED "complete-if-added" Tightens Minor: "null is not possible where a condition holds";
    COMPLETE_IF_REMOVED "complete-if-removed" Loosens Major: "null is possible where a condition forbade it";
    COMPLETE_IF_CHANGED "complete-if-changed" Undetermined Review: "null is not possible under another condition";
    // Quality rules.
    QUALITY_ADDED "quality-rule-added" Tightens Minor: "a further rule rejects publications that break it";
    QUALITY_REMOVED "quality-rule-removed" Loosens Major: "a rule no longer rejects publications that break it";
    QUALITY_TIGHTENED "quality-threshold-tightened" Tightens Minor: "a rule accepts less than before";
    QUALITY_LOOSENED "quality-threshold-loosened" Loosens Major: "a rule accepts more than before";
    QUALITY_MOVED "quality-threshold-moved" Undetermined Major: "a rule accepts what it refused, and refuses what it accepted";
    QUALITY_RESTATED "quality-rule-restated" Neutral Patch: "the same rule is written in another way";
    QUALITY_SEVERITY_LOOSENED "quality-severity-loosened" Loosens Major: "a rule warns where it rejected";
    QUALITY_SEVERITY_TIGHTENED "quality-severity-tightened" Tightens Minor: "a rule rejects where it warned";
    QUALITY_MEASURE_CHANGED "quality-measure-changed" Undetermined Review: "a rule measures something else";
    QUALITY_NOTED "quality-warning-changed" Neutral Patch: "a rule that only warns or informs was changed";
    CONDITION_ADDED "row-condition-added" Tightens Minor: "every row meets a further condition";
    CONDITION_REMOVED "row-condition-removed" Loosens Major: "rows need not meet a condition any more";
    CONDITION_CHANGED "row-condition-changed" Undetermined Review: "rows meet another condition";
    // Service levels.
    SLA_ADDED "sla-added" Tightens Minor: "a further service level is promised";
    SLA_REMOVED "sla-removed" Loosens Major: "a service level is no longer promised";
    SLA_LOOSENED "sla-loosened" Loosens Major: "a lower service level is promised";
    SLA_TIGHTENED "sla-tightened" Tightens Minor: "a higher service level is promised";
    SLA_RESTATED "sla-restated" Neutral Patch: "the same service level is written in another way";
    SLA_CHANGED "sla-changed" Undetermined Review: "a service level was changed in a way that cannot be compared";
    END_OF_SUPPORT_ANNOUNCED "end-of-support-announced" Neutral Minor: "the last day of support was announced";
    // Ports and servers.
    PORT_ADDED "port-added" Tightens Minor: "data goes out in a further way";
    PORT_REMOVED "port-removed" Loosens Major: "data no longer goes out in this way";
    PORT_LOOSENED "port-narrowed" Loosens Major: "a port offers less than before";
    PORT_TIGHTENED "port-widened" Tightens Minor: "a port offers more than before";
    PORT_CHANGED "port-changed" Undetermined Major: "a port speaks another protocol";
    SERVER_ADDED "server-added" Tightens Minor: "there is a further server";
    SERVER_REMOVED "server-removed" Loosens Major: "a server is gone";
    SERVER_CHANGED "server-changed" Neutral Minor: "a server is found elsewhere";
    // Who may see what.
    ROLE_ADDED "role-added" Tightens Minor: "a further role may be granted";
    ROLE_REMOVED "role-removed" Loosens Major: "a role can no longer be granted";
    ROLE_LOOSENED "role-narrowed" Loosens Major: "a role may see fewer tables, or for a shorter time";
    ROLE_TIGHTENED "role-widened" Tightens Minor: "a role may see more tables, or for a longer time";
    ROLE_TERMS_CHANGED "role-terms-changed" Neutral Minor: "a role is approved by others, by more or fewer of them, or for another purpose";
    CLASSIFICATION_RAISED "classification-raised" Loosens Minor protects: "a higher classification: fewer may see it";
    CLASSIFICATION_LOWERED "classification-lowered" Tightens Minor: "a lower classification: more may see it";
    CLASSIFICATION_CHANGED "classification-changed" Undetermined Minor protects: "another classification, of which only its users know whether it is higher";
    PII_DECLARED "pii-declared" Loosens Minor protects: "it is personal data: those who may not see it see it masked";
    PII_WITHDRAWN "pii-withdrawn" Tightens Minor: "it is no personal data";
    MASK_ADDED "mask-added" Loosens Minor protects: "it is masked for those who may not see it";
    MASK_REMOVED "mask-removed" Tightens Minor: "it is no longer masked";
    MASK_CHANGED "mask-changed" Undetermined Minor protects: "it is masked in another way";
    ROW_FILTER_ADDED "row-filter-added" Loosens Minor protects: "a role sees only some rows";
    ROW_FILTER_REMOVED "row-filter-removed" Tightens Minor: "a role sees every row";
    ROW_FILTER_CHANGED "row-filter-changed" Undetermined Minor protects: "a role sees other rows";
    UNMASKED_NARROWED "unmasked-narrowed" Loosens Minor protects: "a role sees fewer columns in clear";
    UNMASKED_WIDENED "unmasked-widened" Tightens Minor: "a role sees more columns in clear";
    VISIBLE_COLUMNS_NARROWED "visible-columns-narrowed" Loosens Minor protects: "a role does not see some columns at all any more";
    VISIBLE_COLUMNS_WIDENED "visible-columns-widened" Tightens Minor: "a role sees columns that it did not see at all";
    DECLASSIFY_CHANGED "declassify-changed" Undetermined Minor protects: "whether the column carries the protection of its inputs was changed";
}
