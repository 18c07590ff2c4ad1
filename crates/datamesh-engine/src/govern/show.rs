//! How each column is shown: in clear, masked, or not at all, by the ways that admit a row.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray, new_null_array};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::nullif;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use datafusion::error::Result;
use datamesh_core::access::TableAccess;
use datamesh_core::mask::Mask;
use datamesh_core::{Column, DataType as ContractType};

use super::mask::{Kernel, MaskKey};
use crate::scan::field_id;

/// What one way shows of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Clear,
    Masked,
    No,
}

/// How a column, or a field of one, is shown.
#[derive(Clone, Debug)]
pub(super) enum Show {
    /// As it is, in every row that is seen.
    Clear,
    /// As each way says, in this order.
    Cells(Vec<Seen>, Kernel),
    /// A struct: which ways show it, and its fields.
    Fields(Vec<bool>, Vec<Show>),
}

/// Rows of a batch.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    All,
    None,
    Some(BooleanBuffer),
}

impl Rows {
    pub(super) fn of(rows: BooleanBuffer) -> Self {
        match rows.count_set_bits() {
            0 => Self::None,
            all if all == rows.len() => Self::All,
            _ => Self::Some(rows),
        }
    }

    fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::None, other) => other.clone(),
            (own, Self::None) => own,
            (Self::Some(one), Self::Some(other)) => Self::of(&one | other),
        }
    }

    /// Those that any of the chosen ways admits.
    pub(super) fn any<'a>(ways: impl IntoIterator<Item = (&'a Self, bool)>) -> Self {
        ways.into_iter().filter(|(_, chosen)| *chosen).fold(Self::None, |rows, (own, _)| rows.or(own))
    }
}

impl Show {
    /// The values of a batch's column that are seen, by the rows that each way admits.
    pub(super) fn apply(&self, array: &ArrayRef, field: &Field, ways: &[Rows]) -> Result<ArrayRef> {
        let rows =
            |chosen: &dyn Fn(usize) -> bool| Rows::any(ways.iter().enumerate().map(|(at, rows)| (rows, chosen(at))));
        let nothing = || new_null_array(array.data_type(), array.len());
        Ok(match self {
            Self::Clear => array.clone(),
            Self::Cells(seen, kernel) => {
                let clear = rows(&|at| seen[at] == Seen::Clear);
                let masked = rows(&|at| seen[at] == Seen::Masked);
                match (clear, masked) {
                    (Rows::All, _) => array.clone(),
                    (Rows::None, Rows::None) => nothing(),
                    (Rows::None, Rows::All) => kernel.apply(array)?,
                    (Rows::None, Rows::Some(masked)) => only(kernel.apply(array)?, &masked)?,
                    (Rows::Some(clear), Rows::None) => only(array.clone(), &clear)?,
                    (Rows::Some(clear), masked) => {
                        let stand_in = kernel.apply(array)?;
                        let mixed = zip(&BooleanArray::new(clear.clone(), None), array, &stand_in)?;
                        match masked {
                            Rows::Some(masked) => only(mixed, &(&clear | &masked))?,
                            _ => mixed,
                        }
                    }
                }
            }
            Self::Fields(shown, fields) => {
                let shown = match rows(&|at| shown[at]) {
                    Rows::None => return Ok(nothing()),
                    Rows::All => None,
                    Rows::Some(shown) => Some(NullBuffer::new(shown)),
                };
                let (Some(array), DataType::Struct(types)) = (array.as_struct_opt(), field.data_type()) else {
                    return Ok(nothing());
                };
                let columns = fields.iter().zip(array.columns()).zip(types);
                let columns = columns.map(|((show, column), field)| show.apply(column, field, ways));
                let columns = columns.collect::<Result<Vec<_>>>()?;
                let nulls = NullBuffer::union(array.nulls(), shown.as_ref());
                Arc::new(StructArray::try_new_with_length(types.clone(), columns, nulls, array.len())?)
            }
        })
    }

    /// The field as it is shown: what may be kept back may be null.
    pub(super) fn field(&self, field: &FieldRef) -> FieldRef {
        match (self, field.data_type()) {
            (Self::Clear, _) => field.clone(),
            (Self::Fields(_, shows), DataType::Struct(fields)) => {
                let fields: Fields = shows.iter().zip(fields).map(|(show, field)| show.field(field)).collect();
                Arc::new(field.as_ref().clone().with_data_type(DataType::Struct(fields)).with_nullable(true))
            }
            _ => Arc::new(field.as_ref().clone().with_nullable(true)),
        }
    }
}

/// The values of some rows; the others are null.
fn only(array: ArrayRef, rows: &BooleanBuffer) -> Result<ArrayRef> {
    Ok(nullif(&array, &BooleanArray::new(!rows, None))?)
}

/// What decides how the columns of a table are shown.
pub(super) struct Decision<'a> {
    pub(super) access: &'a TableAccess,
    /// The contract's columns.
    pub(super) contract: &'a [Column],
    /// The table's columns as they are now.
    pub(super) current: &'a SchemaRef,
    pub(super) key: Option<&'a MaskKey>,
}

/// A mask needs the mesh's secret, which the engine was not given.
pub(super) struct NoKey;

impl Decision<'_> {
    /// How a column of a snapshot is shown; `None`: not at all.
    pub(super) fn column(&self, field: &Field) -> std::result::Result<Option<Show>, NoKey> {
        let ways = vec![true; self.access.ways.len()];
        let named = position(self.current.fields(), field).map(|current| current.name().clone());
        let known = named.and_then(|name| self.contract.iter().find(|column| column.name == name));
        let hidden = |at: usize| known.is_some_and(|known| self.access.ways[at].hidden.contains(&known.name));
        let shown: Vec<bool> = ways.iter().enumerate().map(|(at, _)| !hidden(at)).collect();
        let current = position(self.current.fields(), field);
        let path = known.map(|known| vec![known.name.clone()]);
        let show = self.node(field, current, known.map(|known| &known.data_type), path, &shown)?;
        let unseen = match &show {
            Show::Clear => false,
            Show::Cells(seen, _) => seen.iter().all(|seen| *seen == Seen::No),
            Show::Fields(..) => false,
        };
        Ok((!unseen).then_some(show))
    }

    /// How a field is shown where only some ways show what it is in. `path` is `None` for what is no longer there.
    fn node(
        &self,
        field: &Field,
        current: Option<&FieldRef>,
        contract: Option<&ContractType>,
        path: Option<Vec<String>>,
        shown: &[bool],
    ) -> std::result::Result<Show, NoKey> {
        let masks = |path: &[String]| self.access.masks.get(path) != Some(&Mask::None);
        let below = |at: usize, path: &[String]| {
            self.access.ways[at]
                .masked
                .iter()
                .any(|masked| masked.len() > path.len() && masked.starts_with(path) && masks(masked))
        };
        let parts = match (field.data_type(), contract) {
            (DataType::Struct(fields), Some(ContractType::Struct(columns))) => Some((fields, columns.as_slice())),
            _ => None,
        };
        let gone = parts.is_none() && current.is_some_and(|current| !holds(current, field));
        let mut within = false;
        let seen: Vec<Seen> = shown
            .iter()
            .enumerate()
            .map(|(at, shown)| match &path {
                _ if !shown => Seen::No,
                None if self.access.ways[at].removed => Seen::Clear,
                None => Seen::No,
                Some(_) if gone && !self.access.ways[at].removed => Seen::No,
                Some(path) if self.access.ways[at].masked.contains(path) && masks(path) => Seen::Masked,
                // What is in a list or a map is not masked by itself: then there is none of it.
                Some(path) if parts.is_none() && below(at, path) => {
                    within = true;
                    Seen::Masked
                }
                Some(_) => Seen::Clear,
            })
            .collect();
        let is_clear = |seen: &[Seen]| {
            let sees_all = |at: usize| self.access.ways[at].rows.is_none();
            seen.iter().all(|seen| *seen == Seen::Clear)
                || seen.iter().enumerate().any(|(at, seen)| *seen == Seen::Clear && sees_all(at))
        };
        let Some((fields, columns)) = parts else {
            if is_clear(&seen) {
                return Ok(Show::Clear);
            }
            let mask = path.as_ref().filter(|_| !within).and_then(|path| self.access.masks.get(path));
            let kernel = match (mask, contract) {
                (Some(mask), Some(contract)) if seen.contains(&Seen::Masked) => {
                    Kernel::new(mask, contract, self.key).ok_or(NoKey)?
                }
                _ => Kernel::Null,
            };
            return Ok(Show::Cells(seen, kernel));
        };
        let shown: Vec<bool> = seen.iter().map(|seen| *seen == Seen::Clear).collect();
        let current_fields = match current.map(|current| current.data_type()) {
            Some(DataType::Struct(fields)) => fields.clone(),
            _ => Fields::empty(),
        };
        let mut shows = Vec::with_capacity(fields.len());
        for part in fields {
            let current = position(&current_fields, part);
            let known = current.and_then(|current| columns.iter().find(|column| column.name == *current.name()));
            let path = path
                .as_ref()
                .zip(known)
                .map(|(path, known)| path.iter().cloned().chain([known.name.clone()]).collect::<Vec<_>>());
            shows.push(self.node(part, current, known.map(|known| &known.data_type), path, &shown)?);
        }
        if is_clear(&seen) && shows.iter().all(|show| matches!(show, Show::Clear)) {
            return Ok(Show::Clear);
        }
        if seen.iter().all(|seen| *seen == Seen::No) {
            return Ok(Show::Cells(seen, Kernel::Null));
        }
        Ok(Show::Fields(shown, shows))
    }
}

/// Whether `current` still has everything that is in `field`.
pub(super) fn holds(current: &Field, field: &Field) -> bool {
    let parts = |field: &Field| match field.data_type() {
        DataType::Struct(fields) => fields.clone(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Fields::from(vec![item.clone()])
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => Fields::empty(),
        },
        _ => Fields::empty(),
    };
    let there = parts(current);
    parts(field).iter().all(|part| position(&there, part).is_some_and(|current| holds(current, part)))
}

/// The field with the same id.
pub(super) fn position<'f>(fields: &'f Fields, wanted: &Field) -> Option<&'f FieldRef> {
    let id = field_id(wanted)?;
    fields.iter().find(|field| field_id(field) == Some(id))
}
