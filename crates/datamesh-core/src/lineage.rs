//! Column lineage: which input columns an output column comes from, and how. The words are those of OpenLineage's
//! ColumnLineageDatasetFacet 1-2-0.
//!
//! What decides a table's rows (`WHERE`, `GROUP BY`, join conditions) concerns all its columns alike, so it is kept once
//! for the table, as the facet's `dataset` does, and not with every column.

mod event;
mod facet;
mod graph;
mod render;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use event::{Run, RunDataset, run_event};
pub use facet::facet;
pub use graph::{Direction, Edge, Effect, Hop, LineageGraph, Node, Trace};
pub use render::{Ink, mermaid, to_json, tree};
pub use source::{database_dataset, external_dataset, iceberg_dataset};

use crate::error::{Error, ErrorCode, Result};
use crate::ids::{Name, ProductId, ProductKey};

/// The namespace of a mesh's own tables, beside those of external systems.
pub const MESH_NAMESPACE: &str = "datamesh";

/// Whether an output's value is made of an input's value, or only influenced by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The value is derived from the input.
    Direct,
    /// The input decides something, but is no part of the value.
    Indirect,
}

impl Kind {
    /// OpenLineage's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "DIRECT",
            Self::Indirect => "INDIRECT",
        }
    }
}

/// How an input reaches an output. The order is that of OpenLineage's documentation, direct ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subtype {
    /// Taken as it is.
    Identity,
    /// Computed from values of the same row.
    Transformation,
    /// Computed from values of several rows.
    Aggregation,
    /// Compared in a join condition.
    Join,
    /// Rows are grouped by it.
    GroupBy,
    /// Rows are kept or dropped by it.
    Filter,
    /// Rows are ordered by it.
    Sort,
    /// It partitions or orders a window.
    Window,
    /// It chooses between values: `CASE WHEN`, `COALESCE`, `NULLIF`.
    Conditional,
}

impl Subtype {
    /// Every subtype, in order.
    pub const ALL: [Self; 9] = [
        Self::Identity,
        Self::Transformation,
        Self::Aggregation,
        Self::Join,
        Self::GroupBy,
        Self::Filter,
        Self::Sort,
        Self::Window,
        Self::Conditional,
    ];

    /// OpenLineage's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "IDENTITY",
            Self::Transformation => "TRANSFORMATION",
            Self::Aggregation => "AGGREGATION",
            Self::Join => "JOIN",
            Self::GroupBy => "GROUP_BY",
            Self::Filter => "FILTER",
            Self::Sort => "SORT",
            Self::Window => "WINDOW",
            Self::Conditional => "CONDITIONAL",
        }
    }

    /// Reads OpenLineage's word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subtype| subtype.as_str() == text)
    }

    /// Direct or indirect.
    pub fn kind(self) -> Kind {
        match self {
            Self::Identity | Self::Transformation | Self::Aggregation => Kind::Direct,
            _ => Kind::Indirect,
        }
    }

    /// What becomes of an input that reaches an intermediate value by `inner`, when that value is used by `self`.
    ///
    /// The first indirect step seen from the output names the influence: whatever decides a value that is only
    /// filtered by is itself a filter. Of direct steps the one that changes most counts. This is associative, with
    /// [`Subtype::Identity`] as its neutral element.
    pub fn then(self, inner: Self) -> Self {
        match (self.kind(), inner.kind()) {
            (Kind::Indirect, _) => self,
            (Kind::Direct, Kind::Indirect) => inner,
            (Kind::Direct, Kind::Direct) => self.max(inner),
        }
    }
}

/// A subtype with OpenLineage's masking flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transformation {
    /// How the input reaches the output.
    pub subtype: Subtype,
    /// Whether the value is obfuscated on its way.
    pub masking: bool,
}

impl Transformation {
    /// [`Subtype::then`]; what was masked once stays masked.
    pub fn then(self, inner: Self) -> Self {
        Self { subtype: self.subtype.then(inner.subtype), masking: self.masking || inner.masking }
    }

    /// Direct or indirect.
    pub fn kind(self) -> Kind {
        self.subtype.kind()
    }
}

impl From<Subtype> for Transformation {
    fn from(subtype: Subtype) -> Self {
        Self { subtype, masking: false }
    }
}

/// The way to a field: a column, or a struct's field below it, as `address.city`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// A column.
    pub fn column(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// A column and the fields below it; `None` where there is none.
    pub fn new(parts: Vec<String>) -> Option<Self> {
        (!parts.is_empty()).then_some(Self(parts))
    }

    /// The names, column first.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// A field of this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    /// This path with `rest` below it.
    #[must_use]
    pub fn join(&self, rest: &[String]) -> Self {
        Self(self.0.iter().chain(rest).cloned().collect())
    }

    /// What is left of `other` below this path; `None` where it does not lie below.
    pub fn rest_of<'o>(&self, other: &'o Self) -> Option<&'o [String]> {
        other.0.strip_prefix(self.0.as_slice())
    }
}

impl fmt::Display for FieldPath {
    /// Joined by dots; a name that has a dot or a quote is quoted, so that the text can be read back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            if part.is_empty() || part.contains(['.', '"']) {
                write!(f, "\"{}\"", part.replace('"', "\"\""))?;
            } else {
                f.write_str(part)?;
            }
        }
        Ok(())
    }
}

impl From<String> for FieldPath {
    fn from(text: String) -> Self {
        let mut parts = Vec::new();
        let mut part = String::new();
        let mut characters = text.chars().peekable();
        let mut quoted = false;
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    part.push('"');
                }
                '"' if quoted || part.is_empty() => quoted = !quoted,
                '.' if !quoted => parts.push(std::mem::take(&mut part)),
                other => part.push(other),
            }
        }
        parts.push(part);
        Self(parts)
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.to_string()
    }
}

/// What a column belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dataset {
    /// A table of a product's major version, by normalised names.
    Table {
        /// The product's major version.
        product: ProductKey,
        /// The table.
        table: String,
    },
    /// Data outside the mesh, named as OpenLineage names datasets.
    External {
        /// The system: `file`, `s3://bucket`, `postgres://host:5432`.
        namespace: String,
        /// The dataset in it.
        name: String,
    },
    /// The result of a query that is not kept.
    Query,
}

impl Dataset {
    /// OpenLineage's namespace.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Table { .. } => MESH_NAMESPACE,
            Self::External { namespace, .. } => namespace,
            Self::Query => "query",
        }
    }

    /// OpenLineage's name: `domain.product_v1.table` for a table of the mesh.
    pub fn name(&self) -> String {
        match self {
            Self::Table { product, table } => format!("{product}.{table}"),
            Self::External { name, .. } => name.clone(),
            Self::Query => "result".to_owned(),
        }
    }

    /// Reads back what [`Dataset::namespace`] and [`Dataset::name`] wrote; `None` for a table's name that is none.
    pub fn from_parts(namespace: &str, name: &str) -> Option<Self> {
        if namespace != MESH_NAMESPACE {
            return Some(Self::External { namespace: namespace.to_owned(), name: name.to_owned() });
        }
        let mut parts = name.splitn(3, '.');
        let (domain, schema, table) = (parts.next()?, parts.next()?, parts.next()?);
        let (product, major) = schema.rsplit_once("_v")?;
        let product = ProductKey { domain: domain.to_owned(), product: product.to_owned(), major: major.parse().ok()? };
        Some(Self::Table { product, table: table.to_owned() })
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { product, table } => write!(f, "{product}.{table}"),
            Self::External { namespace, name } if namespace.contains("://") => {
                write!(f, "{namespace}/{}", name.trim_start_matches('/'))
            }
            Self::External { namespace, name } => write!(f, "{namespace}:{name}"),
            Self::Query => f.write_str("query"),
        }
    }
}

/// One field of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputField {
    /// Where it is.
    pub dataset: Dataset,
    /// Which one.
    pub field: FieldPath,
}

/// Input fields, each with every way it has an influence. A field that is both shown and filtered by keeps both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs(BTreeMap<InputField, BTreeSet<Transformation>>);

impl Inputs {
    /// A field taken as it is.
    pub fn identity(dataset: Dataset, field: FieldPath) -> Self {
        let mut inputs = Self::default();
        inputs.add(InputField { dataset, field }, Subtype::Identity.into());
        inputs
    }

    /// Adds one influence.
    pub fn add(&mut self, input: InputField, transformation: Transformation) {
        self.0.entry(input).or_default().insert(transformation);
    }

    /// Adds every influence of `other`.
    pub fn merge(&mut self, other: Self) {
        for (input, mut transformations) in other.0 {
            self.0.entry(input).or_default().append(&mut transformations);
        }
    }

    /// These inputs of a value, as inputs of what `outer` makes of the value.
    #[must_use]
    pub fn through(&self, outer: Subtype) -> Self {
        let outer = Transformation::from(outer);
        let compose =
            |ways: &BTreeSet<Transformation>| ways.iter().map(|inner| outer.then(*inner)).collect::<BTreeSet<_>>();
        Self(self.0.iter().map(|(input, ways)| (input.clone(), compose(ways))).collect())
    }

    /// The field `name` of a struct that has these inputs: of a struct taken as it is, exactly that field.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let mut inputs = Self::default();
        for (input, transformation) in self.iter() {
            let field = match transformation.subtype {
                Subtype::Identity => input.field.child(name),
                _ => input.field.clone(),
            };
            inputs.add(InputField { dataset: input.dataset.clone(), field }, transformation);
        }
        inputs
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every influence, by field.
    pub fn iter(&self) -> impl Iterator<Item = (&InputField, Transformation)> {
        self.0.iter().flat_map(|(input, ways)| ways.iter().map(move |way| (input, *way)))
    }

    /// Every field with its influences.
    pub fn fields(&self) -> impl Iterator<Item = (&InputField, &BTreeSet<Transformation>)> {
        self.0.iter()
    }
}

/// One output column with its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLineage {
    /// The output.
    pub field: FieldPath,
    /// Its inputs.
    pub inputs: Inputs,
}

/// The lineage of a table, or of a query's result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnLineage {
    /// The output columns, in order.
    pub fields: Vec<FieldLineage>,
    /// What decides the rows.
    pub dataset: Inputs,
    /// Every dataset that is read, also one of which no column matters, as by `count(*)`.
    pub reads: BTreeSet<Dataset>,
}

impl ColumnLineage {
    /// The edges into `output`. A dataset that is read without any of its columns has an edge of its own.
    pub fn edges(&self, output: &Dataset) -> Vec<Edge> {
        let mut edges = Vec::new();
        let of_rows = [(None, &self.dataset)];
        let of_fields = self.fields.iter().map(|field| (Some(field.field.clone()), &field.inputs));
        for (field, inputs) in of_rows.into_iter().chain(of_fields) {
            for (input, transformation) in inputs.iter() {
                edges.push(Edge {
                    output: Node { dataset: output.clone(), field: field.clone() },
                    input: Node { dataset: input.dataset.clone(), field: Some(input.field.clone()) },
                    how: Some(transformation),
                });
            }
        }
        let named: BTreeSet<Dataset> = edges.iter().map(|edge| edge.input.dataset.clone()).collect();
        for dataset in self.reads.difference(&named) {
            edges.push(Edge {
                output: Node { dataset: output.clone(), field: None },
                input: Node { dataset: dataset.clone(), field: None },
                how: None,
            });
        }
        edges
    }

    /// The lineage that has these edges; those into other datasets than `output` are left out. Columns without inputs
    /// have no edges: `columns` says which there are, in order.
    pub fn from_edges<'e>(output: &Dataset, columns: &[FieldPath], edges: impl IntoIterator<Item = &'e Edge>) -> Self {
        let mut lineage = Self::default();
        for column in columns {
            lineage.fields.push(FieldLineage { field: column.clone(), inputs: Inputs::default() });
        }
        for edge in edges.into_iter().filter(|edge| edge.output.dataset == *output) {
            lineage.reads.insert(edge.input.dataset.clone());
            let (Some(field), Some(how)) = (&edge.input.field, edge.how) else { continue };
            let input = InputField { dataset: edge.input.dataset.clone(), field: field.clone() };
            let inputs = match &edge.output.field {
                None => &mut lineage.dataset,
                Some(output) => {
                    let at = lineage.fields.iter().position(|known| known.field == *output).unwrap_or_else(|| {
                        lineage.fields.push(FieldLineage { field: output.clone(), inputs: Inputs::default() });
                        lineage.fields.len() - 1
                    });
                    &mut lineage.fields[at].inputs
                }
            };
            inputs.add(input, how);
        }
        lineage
    }
}

/// The lineage of one table of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLineage {
    /// The table's normalised name.
    pub table: String,
    /// Where its columns come from.
    pub lineage: ColumnLineage,
}

/// A column of a product, as a manifest names it: `domain/product.table.column`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ColumnReference {
    /// The product.
    pub product: ProductId,
    /// The table.
    pub table: Name,
    /// The column, or a field below it.
    pub field: FieldPath,
}

impl ColumnReference {
    /// Reads `domain/product.table.column`.
    ///
    /// # Errors
    /// A text of another form, or with names that are none.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |why: String| {
            Error::new(ErrorCode::InvalidArgument, why)
                .with_help("write `domain/product.table.column`, as in `sales/crm.customers.id`")
        };
        let mut parts = text.split('.');
        let (product, table) = (parts.next().unwrap_or_default(), parts.next());
        let product = ProductId::parse(product).map_err(|error| fail(error.to_string()))?;
        let table = table.ok_or_else(|| fail(format!("`{text}` names no table")))?;
        let table = Name::new(table).map_err(fail)?;
        let rest: Vec<String> = parts.map(str::to_owned).collect();
        if rest.iter().any(String::is_empty) {
            return Err(fail(format!("`{text}` has an empty name")));
        }
        let field = FieldPath::new(rest).ok_or_else(|| fail(format!("`{text}` names no column")))?;
        Ok(Self { product, table, field })
    }
}

impl fmt::Display for ColumnReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.product, self.table, self.field)
    }
}

impl TryFrom<String> for ColumnReference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| error.to_string())
    }
}

impl From<ColumnReference> for String {
    fn from(reference: ColumnReference) -> Self {
        reference.to_string()
    }
}

/// What somebody asks the lineage of, with normalised names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The domain, where it was named.
    pub domain: Option<String>,
    /// The product.
    pub product: String,
    /// The major version, where it was named.
    pub major: Option<u64>,
    /// The table, where it was named.
    pub table: Option<String>,
    /// The column or field, where it was named; as written.
    pub field: Option<FieldPath>,
}

impl Subject {
    /// Reads `product`, `domain/product[.table[.column]]` or `domain.product[.table[.column]]`; the product may carry
    /// its major version, as `orders_v2`.
    ///
    /// # Errors
    /// An empty name.
    pub fn parse(text: &str) -> Result<Self> {
        let normal = |name: &str| name.to_ascii_lowercase().replace('-', "_");
        let (domain, rest) = match text.split_once('/') {
            Some((domain, rest)) => (Some(domain), rest),
            None => match text.split_once('.') {
                Some((domain, rest)) => (Some(domain), rest),
                None => (None, text),
            },
        };
        let mut parts = rest.split('.');
        let product = normal(parts.next().unwrap_or_default());
        let (product, major) = match product.rsplit_once("_v").map(|(name, major)| (name, major.parse())) {
            Some((name, Ok(major))) if !name.is_empty() => (name.to_owned(), Some(major)),
            _ => (product, None),
        };
        let table = parts.next().map(normal);
        let field: Vec<String> = parts.map(str::to_owned).collect();
        let empty = domain.is_some_and(str::is_empty)
            || product.is_empty()
            || table.as_deref().is_some_and(str::is_empty)
            || field.iter().any(String::is_empty);
        if empty {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("`{text}` has an empty name"))
                .with_help("write `domain/product`, `domain/product.table` or `domain/product.table.column`"));
        }
        Ok(Self { domain: domain.map(normal), product, major, table, field: FieldPath::new(field) })
    }
}
