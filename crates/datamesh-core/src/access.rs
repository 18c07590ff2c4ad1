//! Who there is, what they were granted, and what that lets them see.
//!
//! A read is decided for one table at a time, and the answer is a [`TableAccess`]: which rows and which cells. The engine
//! builds it into the scan, below the reader's query.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::contract::{Column, DataProduct, Table};
use crate::datatype::DataType;
use crate::domain::Team;
use crate::ids::ProductKey;
use crate::mask::Mask;
use crate::period::Period;

/// Version of the serialised form of [`Governance`].
pub const GOVERNANCE_FORMAT: u32 = 1;

/// A kind of principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    Service,
    /// A team: what a domain reads its inputs as.
    Team,
    /// A role, where somebody asks what it would see.
    Role,
}

impl PrincipalKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::User, Self::Service, Self::Team, Self::Role];

    /// The word before the colon of a principal's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Team => "team",
            Self::Role => "role",
        }
    }
}

/// Splits `user:alice` into kind and name; without a kind it is a user.
///
/// # Errors
/// What is wrong with it.
pub fn parse_principal(text: &str) -> Result<(PrincipalKind, &str), String> {
    let (kind, name) = match text.split_once(':') {
        None => (PrincipalKind::User, text),
        Some((word, name)) => {
            let kind = PrincipalKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            (
                kind.ok_or_else(|| format!("`{word}` is no kind of principal; there are user, service, team, role"))?,
                name,
            )
        }
    };
    if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("`{}` names no principal", text.escape_default()));
    }
    Ok((kind, name))
}

/// The type of a principal's attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributeType {
    /// Text.
    String,
    /// A 64-bit signed integer.
    Long,
    /// True or false.
    Boolean,
    /// A set of texts.
    Strings,
}

impl AttributeType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::String, Self::Long, Self::Boolean, Self::Strings];

    /// Its word in `mesh.yaml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Long => "long",
            Self::Boolean => "boolean",
            Self::Strings => "strings",
        }
    }
}

/// The value of a principal's attribute. It is bound to a row filter as a parameter, never written into its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributeValue {
    /// Text.
    String(String),
    /// A 64-bit signed integer.
    Long(i64),
    /// True or false.
    Boolean(bool),
    /// A set of texts.
    Strings(BTreeSet<String>),
}

impl AttributeValue {
    /// Its type.
    pub fn attribute_type(&self) -> AttributeType {
        match self {
            Self::String(_) => AttributeType::String,
            Self::Long(_) => AttributeType::Long,
            Self::Boolean(_) => AttributeType::Boolean,
            Self::Strings(_) => AttributeType::Strings,
        }
    }
}

/// Somebody who may be granted something, as `mesh.yaml` declares them. Teams have their members elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalProfile {
    /// `user` or `service`.
    pub kind: PrincipalKind,
    /// The name, unique among its kind.
    pub name: String,
    /// Who that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The roles they have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// What policies and row filters know of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, AttributeValue>,
}

impl PrincipalProfile {
    /// `user:alice`.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind.as_str(), self.name)
    }
}

/// A role, which principals have and contracts offer access to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The roles that it includes: who has this one has them too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub includes: BTreeSet<String>,
}

/// A file of policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFile {
    /// The normalised name of the domain whose resources alone it is about; `None`: a policy of the mesh, which binds all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Its path within the mesh's folder.
    pub path: String,
    /// Its text, Cedar.
    pub text: String,
}

/// A policy that somebody need not keep for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiver {
    /// The normalised name of the domain whose file it stands in, and whose resources alone it is about; `None`: the mesh's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The policy's id.
    pub policy: String,
    /// What it is waived for: `domain`, `domain/product`, `domain/product.table` or `domain/product.table.column`.
    pub resource: String,
    /// Who answers for it: a team.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// From when on it no longer counts.
    pub expires: DateTime<Utc>,
}

/// What the whole mesh agreed on: principals, policies and waivers. Applied as one, with a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Governance {
    /// Version of this form, [`GOVERNANCE_FORMAT`].
    pub format: u32,
    /// Who runs the platform: a team, whose members may do everything that no `forbid` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The teams that the mesh declares; the others are its domains'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<Team>,
    /// The attributes that principals have, with their types.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, AttributeType>,
    /// The roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// Users and services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<PrincipalProfile>,
    /// The policies, by path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyFile>,
    /// The waivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waivers: Vec<Waiver>,
    /// Ids of policies of the default pack that do not hold here.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub disabled: BTreeSet<String>,
    /// Who counts as one where duties are separated.
    #[serde(skip_serializing_if = "SeparationOfDuties::is_people")]
    pub separation_of_duties: SeparationOfDuties,
}

/// Who counts as one and the same where duties are separated (NIST RBAC, static separation of duty): nobody approves
/// their own request, and two approvers are two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeparationOfDuties {
    /// People: who acts in another's name counts with both.
    #[default]
    People,
    /// Names: who acts in another's name counts as that other only. For a mesh that one person runs.
    Names,
}

impl SeparationOfDuties {
    /// Its words.
    pub const WORDS: &[&str] = &["people", "names"];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Names => "names",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::People, Self::Names].into_iter().find(|one| one.as_str() == word)
    }

    /// Whether it is the default.
    pub fn is_people(&self) -> bool {
        *self == Self::People
    }
}

/// What a contract offers to a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessOffer {
    /// The role.
    pub role: String,
    /// Normalised names of the tables; empty: all of the product.
    pub tables: BTreeSet<String>,
    /// The SQL condition on rows that are seen; `principal.<attribute>` is the reader's.
    pub rows: Option<String>,
    /// The columns that are seen at all, `column` or `table.column`; `None`: all of them.
    pub columns: Option<BTreeSet<String>>,
    /// Protected columns that are seen in clear: `column`, `table.column`, with fields `column.field`.
    pub unmasked: BTreeSet<String>,
    /// Teams, or users, who approve; empty: the product's owner.
    pub approvers: Vec<String>,
    /// How many different people must approve: 1 or 2.
    pub approvals: u8,
    /// How long a grant lasts at most; `None`: until it is revoked.
    pub expires: Option<Period>,
    /// The purposes that it is offered for; empty: any.
    pub purposes: BTreeSet<String>,
}

impl AccessOffer {
    /// Whether it is about a table of the product.
    pub fn covers(&self, table: &Table) -> bool {
        self.tables.is_empty() || self.tables.contains(&table.name.sql())
    }
}

/// An approved request. It names a role and a major version; what these offer is the contract's to say, at each read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Its number.
    pub number: u64,
    /// The request that it was approved from.
    pub request: u64,
    /// Whose it is: `user:alice`, `service:etl`, `team:fleet-team`.
    pub principal: String,
    /// The major version.
    pub product: ProductKey,
    /// Normalised names of the tables; empty: all that the role is offered.
    #[serde(default)]
    pub tables: BTreeSet<String>,
    /// The role.
    pub role: String,
    /// What for.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Since when.
    pub granted_at: DateTime<Utc>,
    /// Who approved it.
    pub approved_by: Vec<String>,
    /// From when on it no longer counts.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked, by whom and why.
    #[serde(default)]
    pub revoked: Option<Revocation>,
}

impl Grant {
    /// Whether it counts at a moment.
    pub fn is_effective(&self, now: DateTime<Utc>) -> bool {
        self.revoked.is_none() && self.expires_at.is_none_or(|expires| now < expires)
    }

    /// Whether it is about a table of its product.
    pub fn covers(&self, table: &Table) -> bool {
        self.tables.is_empty() || self.tables.contains(&table.name.sql())
    }
}

/// The end of a grant before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// When.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a principal sees of a table: one way or several. Several form a union per row; a cell is in clear only where one and
/// the same way admits its row and shows its column in clear.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableAccess {
    /// What stands for a protected value, by the column's path: its name and those of the fields below. Columns without a
    /// mask are never masked.
    #[serde(with = "by_path")]
    pub masks: BTreeMap<Vec<String>, Mask>,
    /// The ways. None: nothing is seen.
    pub ways: Vec<AccessWay>,
}

/// Masks by path, written `column.field`: a column's name has no dot.
mod by_path {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::mask::Mask;

    pub(super) fn serialize<S: Serializer>(masks: &BTreeMap<Vec<String>, Mask>, to: S) -> Result<S::Ok, S::Error> {
        masks.iter().map(|(path, mask)| (path.join("."), mask)).collect::<BTreeMap<_, _>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Vec<String>, Mask>, D::Error> {
        let masks = BTreeMap::<String, Mask>::deserialize(from)?;
        Ok(masks.into_iter().map(|(path, mask)| (path.split('.').map(str::to_owned).collect(), mask)).collect())
    }
}

/// One way in: a grant, or what needs none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessWay {
    /// The number of its grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<u64>,
    /// Which rows; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowFilter>,
    /// Paths of the columns that are masked, each with an entry in [`TableAccess::masks`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub masked: BTreeSet<Vec<String>>,
    /// Top-level columns that are not seen at all. One that no way shows is not in the table's schema.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hidden: BTreeSet<String>,
    /// Whether columns that the table no longer has are seen too, where an earlier state of it is read. Nothing says any more
    /// how they were protected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

impl AccessWay {
    /// Whether it shows every row and every value.
    pub fn is_plain(&self) -> bool {
        self.rows.is_none() && self.masked.is_empty() && self.hidden.is_empty()
    }
}

/// Which rows a way admits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowFilter {
    /// An SQL condition over the table's columns; `principal.<attribute>` stands for the reader's. Null admits nothing.
    pub condition: String,
    /// The attributes that the reader has.
    pub attributes: BTreeMap<String, AttributeValue>,
}

impl TableAccess {
    /// Everything in clear, columns that are no longer there included.
    pub fn plain() -> Self {
        Self { masks: BTreeMap::new(), ways: vec![AccessWay { removed: true, ..AccessWay::default() }] }
    }

    /// Whether one way shows everything, so that nothing need be governed.
    pub fn is_plain(&self) -> bool {
        self.ways.iter().any(AccessWay::is_plain)
    }

    /// Whether every row is seen, whatever becomes of its cells.
    pub fn shows_all_rows(&self) -> bool {
        self.ways.iter().any(|way| way.rows.is_none())
    }

    /// Whether a column that no way masks, hides or filters the rows of is shown as it is.
    pub fn is_clear(&self, column: &str) -> bool {
        let shows = |way: &AccessWay| {
            way.rows.is_none()
                && !way.hidden.contains(column)
                && !way.masked.iter().any(|path| path.first().is_some_and(|name| name == column))
        };
        self.ways.iter().any(shows)
    }

    /// Whether a way shows a column's values, be it of some rows only.
    pub fn shows_values(&self, column: &str) -> bool {
        let masks = |way: &AccessWay| way.masked.iter().any(|path| path.first().is_some_and(|name| name == column));
        self.ways.iter().any(|way| !way.hidden.contains(column) && !masks(way))
    }

    /// Whether no way shows a column.
    pub fn is_hidden(&self, column: &str) -> bool {
        self.ways.iter().all(|way| way.hidden.contains(column))
    }
}

impl fmt::Display for TableAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ways.is_empty() {
            return f.write_str("deny");
        }
        if self.is_plain() {
            return f.write_str("allow");
        }
        let mut parts = Vec::new();
        if !self.shows_all_rows() {
            parts.push("filter rows".to_owned());
        }
        let masked: BTreeSet<&str> =
            self.ways.iter().flat_map(|way| &way.masked).filter_map(|path| path.first()).map(String::as_str).collect();
        let masked: Vec<&str> =
            masked.into_iter().filter(|name| !self.is_clear(name) && !self.is_hidden(name)).collect();
        if !masked.is_empty() {
            parts.push(format!("mask {}", masked.join(", ")));
        }
        let hidden: BTreeSet<&str> = self.ways.iter().flat_map(|way| &way.hidden).map(String::as_str).collect();
        let hidden: Vec<&str> = hidden.into_iter().filter(|name| self.is_hidden(name)).collect();
        if !hidden.is_empty() {
            parts.push(format!("hide {}", hidden.join(", ")));
        }
        if parts.is_empty() {
            parts.push("some cells masked".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// The column that a name of an offer means in a table, with its path: `column`, `column.field`, or either after `table.`.
pub fn find_column<'t>(table: &'t Table, name: &str) -> Option<(Vec<String>, &'t Column)> {
    fn at<'c>(columns: &'c [Column], path: &[&str]) -> Option<&'c Column> {
        let (first, rest) = path.split_first()?;
        let column = columns.iter().find(|column| column.name == *first)?;
        if rest.is_empty() { Some(column) } else { at(fields(&column.data_type), rest) }
    }
    fn fields(data_type: &DataType) -> &[Column] {
        match data_type {
            DataType::Struct(fields) => fields,
            DataType::Array(item) => fields(&item.data_type),
            DataType::Map(_, value) => fields(&value.data_type),
            _ => &[],
        }
    }
    let path: Vec<&str> = name.trim().split('.').collect();
    let find = |path: &[&str]| {
        at(&table.columns, path).map(|column| (path.iter().map(|name| (*name).to_owned()).collect(), column))
    };
    find(&path).or_else(|| {
        let (first, rest) = path.split_first()?;
        if normalised(first) == table.name.sql() { find(rest) } else { None }
    })
}

/// A name as [`crate::Name::sql`] spells it.
fn normalised(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('-', "_")
}

/// What a contract offers to roles, in its order.
///
/// # Errors
/// What is wrong with its `access:`.
pub fn offers(contract: &DataProduct) -> Result<Vec<AccessOffer>, String> {
    let Some(declared) = contract.declared.get("access").and_then(serde_json::Value::as_array) else {
        return Ok(Vec::new());
    };
    declared
        .iter()
        .enumerate()
        .map(|(at, entry)| offer(entry).map_err(|why| format!("access {}: {why}", at + 1)))
        .collect()
}

fn offer(entry: &serde_json::Value) -> Result<AccessOffer, String> {
    use serde_json::Value;
    // In YAML a purpose such as 2026 is a number.
    let single = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let text = |key: &str| entry.get(key).and_then(single);
    let texts = |key: &str| -> Result<Option<Vec<String>>, String> {
        let wrong = || format!("`{key}` is a list of texts");
        Ok(match entry.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Array(all)) => Some(all.iter().map(single).collect::<Option<_>>().ok_or_else(wrong)?),
            Some(one) => Some(vec![single(one).ok_or_else(wrong)?]),
        })
    };
    let role = text("role").filter(|role| !role.is_empty()).ok_or("it names no role")?;
    let expires = match text("expires") {
        None => None,
        Some(text) => Some(Period::parse(&text).map_err(|why| format!("`expires`: {why}"))?),
    };
    let approvals = match entry.get("approvals") {
        None => 1,
        Some(number) => match number.as_u64() {
            Some(number @ 1..=2) => number as u8,
            _ => return Err("`approvals` is 1 or 2".to_owned()),
        },
    };
    Ok(AccessOffer {
        role,
        tables: texts("tables")?.unwrap_or_default().iter().map(|name| normalised(name)).collect(),
        rows: text("rows"),
        columns: texts("columns")?.map(|names| names.into_iter().collect()),
        unmasked: texts("unmasked")?.unwrap_or_default().into_iter().collect(),
        approvers: texts("approvers")?.unwrap_or_default(),
        approvals,
        expires,
        purposes: texts("purpose")?.unwrap_or_default().into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_described_by_what_it_withholds() {
        let path = |name: &str| vec![name.to_owned()];
        assert_eq!(TableAccess::default().to_string(), "deny");
        assert_eq!(TableAccess::plain().to_string(), "allow");
        let filter = RowFilter { condition: "a = 1".into(), attributes: BTreeMap::new() };
        let masked = AccessWay { masked: BTreeSet::from([path("email")]), ..AccessWay::default() };
        let mut access = TableAccess { masks: BTreeMap::from([(path("email"), Mask::Hash)]), ways: vec![masked] };
        assert_eq!(access.to_string(), "mask email");
        access.ways.push(AccessWay { rows: Some(filter), ..AccessWay::default() });
        assert!(access.shows_all_rows() && !access.is_plain() && !access.is_clear("email") && access.is_clear("id"));
        access.ways[0].hidden.insert("id".into());
        assert!(!access.is_clear("id") && !access.is_hidden("id"));
    }

    #[test]
    fn names_of_offers_are_found_in_a_table() {
        let field = Column::anonymous("country", DataType::String);
        let address = Column::anonymous("address", DataType::Struct(vec![field]));
        let item = Column::anonymous("item", DataType::Struct(vec![address.clone()]));
        let mut table: Table =
            serde_json::from_value(serde_json::json!({"name": "Cust-1", "columns": []})).expect("a table");
        table.columns = vec![address, Column::anonymous("past", DataType::Array(Box::new(item)))];
        let path = |name: &str| find_column(&table, name).map(|(path, _)| path.join("."));
        assert_eq!(path("address"), Some("address".into()));
        assert_eq!(path("address.country"), Some("address.country".into()));
        assert_eq!(path("cust_1.address.country"), Some("address.country".into()));
        assert_eq!(path("past.address.country"), Some("past.address.country".into()));
        for name in ["country", "address.city", "cust-1", "other.address", "address.", ""] {
            assert_eq!(path(name), None, "{name}");
        }
    }

    #[test]
    fn offers_are_what_the_contract_declares() {
        let contract = |access: serde_json::Value| -> DataProduct {
            serde_json::from_value(serde_json::json!({
                "format": 1, "id": {"domain": "a", "product": "b"}, "version": "1.0.0", "owner": "o", "tables": [],
                "declared": {"access": access},
            }))
            .expect("a contract")
        };
        let found = offers(&contract(serde_json::json!([
            {"role": " analyst ", "tables": ["Daily-Orders"], "columns": ["id"], "purpose": 2026, "approvals": 2, "expires": "90d"},
            {"role": "support", "unmasked": ["email"], "approvers": ["stewards"]},
        ])))
        .expect("offers");
        assert_eq!((found[0].role.as_str(), found[0].approvals), ("analyst", 2));
        assert_eq!(found[0].tables, BTreeSet::from(["daily_orders".to_owned()]));
        assert_eq!(found[0].columns, Some(BTreeSet::from(["id".to_owned()])));
        assert_eq!(found[0].purposes, BTreeSet::from(["2026".to_owned()]));
        assert_eq!(found[0].expires, Period::parse("90d").ok());
        assert!(found[1].columns.is_none() && found[1].purposes.is_empty() && found[1].approvals == 1);
        for (access, why) in [
            (serde_json::json!([{}]), "access 1: it names no role"),
            (serde_json::json!([{"role": "a", "purpose": {"a": 1}}]), "access 1: `purpose` is a list of texts"),
            (serde_json::json!([{"role": "a", "columns": [["b"]]}]), "access 1: `columns` is a list of texts"),
            (serde_json::json!([{"role": "a"}, {"role": "b", "approvals": 3}]), "access 2: `approvals` is 1 or 2"),
        ] {
            assert_eq!(offers(&contract(access)), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_decision_can_be_written_down() {
        let path = vec!["address".to_owned(), "street".to_owned()];
        let way = AccessWay { masked: BTreeSet::from([path.clone()]), ..AccessWay::default() };
        let access = TableAccess { masks: BTreeMap::from([(path, Mask::Redact)]), ways: vec![way] };
        let text = serde_json::to_string(&access).expect("JSON");
        assert_eq!(text, r#"{"masks":{"address.street":"redact"},"ways":[{"masked":[["address","street"]]}]}"#);
        assert_eq!(serde_json::from_str::<TableAccess>(&text).expect("a decision"), access);
    }

    #[test]
    fn principals_have_a_kind() {
        assert_eq!(parse_principal("alice"), Ok((PrincipalKind::User, "alice")));
        assert_eq!(parse_principal("team:a-b"), Ok((PrincipalKind::Team, "a-b")));
        for text in ["", "user:", "group:a", "user:a b", "user:a\n"] {
            assert!(parse_principal(text).is_err(), "{text:?}");
        }
    }
}
