//! What somebody asks about, and what policies know of it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use datamesh_core::classification::{Classification, declared, of_product, of_table};
use datamesh_core::contract::{Column, DataProduct, Table};
use datamesh_core::datatype::DataType;
use datamesh_core::ids::DomainName;
use datamesh_core::ownership::{OwnedPath, Ownership};
use datamesh_core::protection::{Protection, strictest};
use serde_json::Value;

use crate::entity::{Fact, Facts, Kind, Node};
use crate::principal::Directory;

/// What somebody asks about.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    /// The mesh.
    Mesh,
    /// A domain.
    Domain(&'a DomainName),
    /// A product.
    Product(&'a DataProduct),
    /// A table of a product.
    Table(&'a DataProduct, &'a Table),
    /// A column of a table, by the names from the top-level column down; as its own contract protects it, without what it
    /// inherits.
    Column(&'a DataProduct, &'a Table, &'a [String]),
    /// A port of a product, by its name.
    Port(&'a DataProduct, &'a str),
    /// A request for access to a product.
    Request(&'a DataProduct, &'a RequestFacts),
}

/// A request for access, as policies see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestFacts {
    /// Its number.
    pub number: u64,
    /// Who made it: `user:alice`.
    pub requester: String,
    /// Who would have the grant: `user:alice`, `service:etl`, `team:fleet-team`.
    pub principal: String,
    /// The role.
    pub role: String,
    /// What for.
    pub purpose: Option<String>,
    /// Teams, or users as `user:alice`, that the offer names as approvers; empty: the product's owner.
    pub approvers: Vec<String>,
    /// What the offer shows in clear.
    pub unmasked: BTreeSet<String>,
}

/// What a product's parts share.
pub(crate) struct ProductNodes<'a> {
    contract: &'a DataProduct,
    /// Normalised.
    pub(crate) domain: String,
    id: String,
    owner: Option<&'a str>,
    owners: BTreeSet<Cow<'a, str>>,
    declares_access: bool,
    has_freshness: bool,
    classification: Classification,
}

fn text(value: &str) -> Fact<'_> {
    Fact::Text(Cow::Borrowed(value))
}

fn text_of(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str)
}

fn texts(value: Option<&Value>) -> Fact<'_> {
    let mut found: Vec<Cow<'_, str>> = match value {
        Some(Value::String(one)) => vec![Cow::Borrowed(one.as_str())],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(Cow::Borrowed).collect(),
        _ => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    Fact::Texts(found)
}

fn is_told(text: Option<&String>) -> Fact<'static> {
    Fact::Flag(text.is_some_and(|text| !text.trim().is_empty()))
}

fn rank(classification: Classification) -> Fact<'static> {
    Fact::Number(classification.rank().into())
}

/// How a name is spelled.
pub(crate) fn name_style(name: &str) -> &'static str {
    let mut letters = name.chars();
    let first_is_upper = letters.next().is_some_and(|c| c.is_ascii_uppercase());
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return "other";
    }
    let upper = name.bytes().any(|c| c.is_ascii_uppercase());
    match (upper, name.contains('_'), name.contains('-')) {
        (false, false, false) => "lowercase",
        (false, true, false) => "snake_case",
        (false, false, true) => "kebab-case",
        (true, false, false) if first_is_upper => "PascalCase",
        (true, false, false) => "camelCase",
        _ => "other",
    }
}

impl<'a> ProductNodes<'a> {
    pub(crate) fn new(contract: &'a DataProduct, ownership: &'a Ownership) -> Self {
        let domain = contract.id.domain.sql();
        let id = format!("{domain}/{}", contract.id.product.sql());
        let owner = ownership.owner_of(OwnedPath::Product(contract)).map(|owner| owner.team);
        let mut owners: BTreeSet<Cow<'a, str>> = BTreeSet::new();
        owners.extend(Some(contract.owner.as_str()).filter(|owner| !owner.is_empty()).map(Cow::Borrowed));
        // The mesh's owner stands for a domain that names none; it has a role of its own.
        owners.extend(
            ownership
                .owner_of(OwnedPath::Domain(&contract.id.domain))
                .filter(|owner| owner.named_on == datamesh_core::ownership::OwnedBy::Domain)
                .map(|owner| Cow::Borrowed(owner.team)),
        );
        Self {
            contract,
            domain,
            id,
            owner,
            owners,
            declares_access: contract.declared.contains_key("access"),
            has_freshness: contract.declared.get("sla").and_then(|sla| sla.get("freshness")).is_some(),
            classification: of_product(contract),
        }
    }

    fn above(&self) -> Vec<(Kind, String)> {
        vec![(Kind::Domain, self.domain.clone()), (Kind::Mesh, "mesh".to_owned())]
    }

    fn within(&self) -> Vec<(Kind, String)> {
        let mut above = self.above();
        above.push((Kind::Product, self.id.clone()));
        above
    }

    fn owned(&self, owner: Option<&'a str>, owners: BTreeSet<Cow<'a, str>>) -> Facts<'a> {
        let mut facts = vec![
            ("domain", Fact::One(Kind::Domain, Cow::Owned(self.domain.clone()))),
            ("owners", Fact::Many(Kind::Team, owners)),
        ];
        facts.extend(owner.map(|team| ("owner", Fact::One(Kind::Team, Cow::Borrowed(team)))));
        facts
    }

    pub(crate) fn product(&self) -> Node<'a> {
        let contract = self.contract;
        let name = contract.id.product.as_str();
        let mut facts = self.owned(self.owner, self.owners.clone());
        facts.extend([
            ("name", text(name)),
            ("nameStyle", text(name_style(name))),
            ("major", Fact::Number(i64::try_from(contract.version.major).unwrap_or(i64::MAX))),
            ("status", text(contract.status.as_str())),
            ("classification", text(self.classification.as_str())),
            ("sensitivity", rank(self.classification)),
            ("tags", texts(contract.declared.get("tags"))),
            ("hasDescription", is_told(contract.description.as_ref())),
            ("hasFreshness", Fact::Flag(self.has_freshness)),
            ("declaresAccess", Fact::Flag(self.declares_access)),
        ]);
        facts.extend(text_of(contract.declared.get("type")).map(|kind| ("type", text(kind))));
        facts.push(("version", Fact::Text(Cow::Owned(contract.version.to_string()))));
        Node { kind: Kind::Product, id: self.id.clone(), ancestors: self.above(), facts }
    }

    fn product_name(&self) -> Fact<'a> {
        Fact::Text(Cow::Owned(self.contract.id.to_string()))
    }

    fn table_id(&self, table: &Table) -> String {
        format!("{}.{}", self.id, table.name.sql())
    }

    fn table_owners(&self, table: &'a Table) -> (Option<&'a str>, BTreeSet<Cow<'a, str>>) {
        let mut owners = self.owners.clone();
        owners.extend(table.owner.as_deref().map(Cow::Borrowed));
        (table.owner.as_deref().or(self.owner), owners)
    }

    pub(crate) fn table(&self, table: &'a Table, has_protected: bool) -> Node<'a> {
        let classification = of_table(self.contract, table);
        let (owner, owners) = self.table_owners(table);
        let mut facts = self.owned(owner, owners);
        facts.extend([
            ("name", text(table.name.as_str())),
            ("product", self.product_name()),
            ("nameStyle", text(name_style(table.name.as_str()))),
            ("major", Fact::Number(i64::try_from(self.contract.version.major).unwrap_or(i64::MAX))),
            ("status", text(self.contract.status.as_str())),
            ("classification", text(classification.as_str())),
            ("sensitivity", rank(classification)),
            ("tags", texts(table.declared.get("tags"))),
            ("hasDescription", is_told(table.description.as_ref())),
            ("hasFreshness", Fact::Flag(self.has_freshness)),
            ("declaresAccess", Fact::Flag(self.declares_access)),
            ("hasKey", Fact::Flag(table.columns.iter().any(|column| column.primary_key))),
            ("write", text(table.write.as_str())),
            ("protected", Fact::Flag(has_protected)),
        ]);
        Node { kind: Kind::Table, id: self.table_id(table), ancestors: self.within(), facts }
    }

    /// The node of a column by its path; `None` where there is none. `protections` are the table's.
    pub(crate) fn column_at(&self, table: &'a Table, path: &[String], protections: &[Protection]) -> Option<Node<'a>> {
        let mut columns = table.columns.as_slice();
        let mut chain = Vec::new();
        for name in path {
            let column = columns.iter().find(|column| column.name == *name)?;
            columns = fields(&column.data_type);
            chain.push(column);
        }
        (!chain.is_empty()).then(|| self.column(table, &chain, protections))
    }

    /// The node of a column by what leads to it, outermost first; the chain is not empty.
    pub(crate) fn column(&self, table: &'a Table, chain: &[&'a Column], protections: &[Protection]) -> Node<'a> {
        let (mut owner, mut owners) = self.table_owners(table);
        let mut around = of_table(self.contract, table);
        let mut said = around;
        let mut path = String::new();
        let mut ancestors = self.within();
        ancestors.push((Kind::Table, self.table_id(table)));
        for (at, column) in chain.iter().enumerate() {
            if at > 0 {
                ancestors.push((Kind::Column, self.column_id(table, &path)));
                path.push('.');
                around = datamesh_core::classification::effective(chain[at - 1], around);
            }
            path.push_str(&column.name);
            said = declared(column, said);
            if let Some(team) = column.owner.as_deref() {
                owner = Some(team);
                owners.insert(Cow::Borrowed(team));
            }
        }
        let id = self.column_id(table, &path);
        let mut facts = self.owned(owner, owners);
        facts.extend([
            ("path", Fact::Text(Cow::Owned(path))),
            ("product", self.product_name()),
            ("table", text(table.name.as_str())),
        ]);
        if let Some(column) = chain.last() {
            let is_chain = |path: &[String]| {
                path.len() <= chain.len() && path.iter().zip(chain).all(|(name, column)| *name == column.name)
            };
            let protection = protections.iter().find(|protection| is_chain(&protection.path));
            // A column with protected fields is protected where they are, not as a whole.
            let own = protection.map_or(said, |protection| protection.classification);
            let classification = strictest(column, around).max(own);
            facts.extend([
                ("name", text(&column.name)),
                ("nameStyle", text(name_style(&column.name))),
                ("status", text(self.contract.status.as_str())),
                ("type", Fact::Text(type_name(&column.data_type))),
                ("nested", Fact::Flag(chain.len() > 1)),
                ("classification", text(classification.as_str())),
                ("sensitivity", rank(classification)),
                ("declaredSensitivity", rank(said)),
                ("pii", Fact::Flag(own_pii(column) || protection.is_some_and(|protection| protection.pii))),
                ("protected", Fact::Flag(protection.is_some())),
                ("declassified", Fact::Flag(column.declared.contains_key("declassify"))),
                ("tags", texts(column.declared.get("tags"))),
                ("hasDescription", is_told(column.description.as_ref())),
                ("declaresAccess", Fact::Flag(self.declares_access)),
                ("required", Fact::Flag(column.required || column.primary_key)),
                ("unique", Fact::Flag(column.unique)),
                ("primaryKey", Fact::Flag(column.primary_key)),
            ]);
            facts.extend(own_mask(column).map(|mask| ("mask", text(mask))));
        }
        Node { kind: Kind::Column, id, ancestors, facts }
    }

    fn column_id(&self, table: &Table, path: &str) -> String {
        format!("{}.{path}", self.table_id(table))
    }

    pub(crate) fn port(&self, port: &'a Value) -> Option<Node<'a>> {
        let name = port.get("name").and_then(Value::as_str).or_else(|| port.get("type").and_then(Value::as_str))?;
        let mut facts = self.owned(self.owner, self.owners.clone());
        facts.extend([
            ("name", text(name)),
            ("product", self.product_name()),
            ("nameStyle", text(name_style(name))),
            ("status", text(self.contract.status.as_str())),
            ("classification", text(self.classification.as_str())),
            ("sensitivity", rank(self.classification)),
            ("tables", texts(port.get("tables"))),
            ("hasDescription", Fact::Flag(port.get("description").is_some())),
            ("declaresAccess", Fact::Flag(self.declares_access)),
        ]);
        facts.extend(text_of(port.get("type")).map(|kind| ("type", text(kind))));
        facts.extend(text_of(port.get("write")).map(|write| ("write", text(write))));
        Some(Node { kind: Kind::Port, id: format!("{}#{name}", self.id), ancestors: self.within(), facts })
    }

    /// The declared ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.contract.declared.get("ports").and_then(Value::as_array).into_iter().flatten()
    }

    /// The node of a request.
    pub(crate) fn request(&self, request: &'a RequestFacts, directory: &Directory) -> Result<Node<'a>, String> {
        let mut facts = self.owned(self.owner, self.owners.clone());
        let split = |text: &str| -> Result<(String, String), String> {
            let id = directory.id(text)?;
            Ok(id.split_once(':').map(|(kind, name)| (kind.to_owned(), name.to_owned())).unwrap_or_default())
        };
        let (kind, name) = split(&request.requester)?;
        if kind == "user" {
            facts.push(("requester", Fact::One(Kind::User, Cow::Owned(name))));
        }
        let (kind, name) = split(&request.principal)?;
        match kind.as_str() {
            "user" => facts.push(("user", Fact::One(Kind::User, Cow::Owned(name)))),
            "team" => facts.push(("team", Fact::One(Kind::Team, Cow::Owned(name)))),
            _ => {}
        }
        let (mut teams, mut users) = (BTreeSet::new(), BTreeSet::new());
        for approver in &request.approvers {
            // A bare name is a team's where there is one.
            if directory.is_team(approver) {
                teams.insert(Cow::Borrowed(approver.as_str()));
                continue;
            }
            match split(approver) {
                Ok((kind, name)) if kind == "user" => {
                    users.insert(Cow::Owned(name));
                }
                Ok((kind, name)) if kind == "team" => {
                    teams.insert(Cow::Owned(name));
                }
                Ok((kind, _)) => return Err(format!("`{approver}`: a {kind} cannot approve")),
                Err(why) => return Err(why),
            }
        }
        if request.approvers.is_empty() {
            teams.extend(self.owner.map(Cow::Borrowed));
        }
        facts.extend([
            ("product", self.product_name()),
            ("role", text(&request.role)),
            ("approvers", Fact::Many(Kind::Team, teams)),
            ("approverUsers", Fact::Many(Kind::User, users)),
            ("unmasked", Fact::Texts(request.unmasked.iter().map(|name| Cow::Borrowed(name.as_str())).collect())),
        ]);
        facts.extend(request.purpose.as_deref().map(|purpose| ("purpose", text(purpose))));
        Ok(Node {
            kind: Kind::Request,
            id: format!("{}#request-{}", self.id, request.number),
            ancestors: self.within(),
            facts,
        })
    }
}

/// The items of a list or map, which have no name of their own: they count as the column.
fn item(column: &Column) -> Option<&Column> {
    match &column.data_type {
        DataType::Array(item) => Some(item),
        DataType::Map(_, value) => Some(value),
        _ => None,
    }
}

fn own_pii(column: &Column) -> bool {
    column.pii || item(column).is_some_and(own_pii)
}

fn own_mask(column: &Column) -> Option<&str> {
    column.mask.as_deref().or_else(|| item(column).and_then(own_mask))
}

/// The named fields below a type.
pub(crate) fn fields(data_type: &DataType) -> &[Column] {
    match data_type {
        DataType::Struct(fields) => fields,
        DataType::Array(item) => fields(&item.data_type),
        DataType::Map(_, value) => fields(&value.data_type),
        _ => &[],
    }
}

fn type_name(data_type: &DataType) -> Cow<'static, str> {
    Cow::Borrowed(match data_type {
        DataType::String => "string",
        DataType::Uuid => "uuid",
        DataType::Json => "json",
        DataType::Boolean => "boolean",
        DataType::Int => "int",
        DataType::Long => "long",
        DataType::Float => "float",
        DataType::Double => "double",
        DataType::Decimal(precision, scale) => return Cow::Owned(format!("decimal({precision},{scale})")),
        DataType::Date => "date",
        DataType::Time => "time",
        DataType::Timestamp => "timestamp",
        DataType::TimestampNtz => "timestamp_ntz",
        DataType::Binary => "binary",
        DataType::Array(_) => "array",
        DataType::Map(..) => "map",
        DataType::Struct(_) => "struct",
    })
}
