//! From the facts about data to a contract that fits it, with the evidence for each line. Pure.
//!
//! Conservative on purpose: a promise is drafted only where (nearly) every value keeps it and a person would expect
//! it; everything else is told as evidence or as a suggestion.

use std::collections::BTreeMap;

use crate::contract::{Column, CsvOptions, TextFormat};
use crate::datatype::DataType;
use crate::profile::{Class, NumberProfile, Occurrence, Origin, Sign, TableProfile, ValueProfile};

/// A drafted table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDraft {
    /// The columns, in order, without those that no contract can have.
    pub columns: Vec<ColumnDraft>,
    /// Columns that were left out, with the reason.
    pub left_out: Vec<(String, String)>,
    /// How to read delimited text.
    pub csv: Option<CsvOptions>,
    /// What else there is to say about the table.
    pub remarks: Vec<String>,
    /// The column that says how old the data is, with its newest value.
    pub newest: Option<(String, String)>,
    /// A partition field worth a thought, where the table is large.
    pub partition: Option<String>,
    /// Rows of which some value does not fit the drafted types, at most, and records that cannot be read.
    pub misfits: u64,
    /// Rows, and records that cannot be read.
    pub records: u64,
}

/// A drafted column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDraft {
    /// The column as the contract would have it.
    pub column: Column,
    /// Why it has its type.
    pub type_evidence: String,
    /// Why each further promise is made, by the manifest's key.
    pub evidence: BTreeMap<&'static str, String>,
    /// What else was seen.
    pub remarks: Vec<String>,
    /// Promises a person may want to add, as manifest lines with their evidence.
    pub suggestions: Vec<(String, String)>,
    /// Why it looks like personal data.
    pub suspicion: Option<String>,
}

/// Below so many rows, what is seen is hardly a rule.
const FEW_ROWS: u64 = 100;
/// An `enum` has at most so many values, each of which stands this often on average.
const ENUM_VALUES: usize = 20;
const ENUM_REPEATS: u64 = 20;
/// The longest text of an `enum`.
const ENUM_LENGTH: u64 = 64;
/// From so many rows on partitioning is worth a thought.
const LARGE: u64 = 5_000_000;

/// Drafts a table of this name.
pub fn draft_table(table: &str, profile: &TableProfile) -> TableDraft {
    let csv = match &profile.origin {
        Origin::Csv(options) => Some(options.clone()),
        _ => None,
    };
    let null_texts = if csv.is_some() { null_texts(&profile.columns) } else { Vec::new() };
    let mut left_out = profile.left_out.clone();
    let mut columns = Vec::new();
    let mut misfits = 0;
    let mut names: Vec<String> = Vec::new();
    // Where many columns have a few misfits each, they add up: then the worst are kept as text.
    let strict = {
        let each = profile.columns.iter().map(|value| decide(value, &null_texts, profile, true).misfits);
        let total: u64 = each.sum();
        total * 100 < profile.rows * 3
    };
    let people = profile.columns.iter().filter(|value| names_a_person(&words(&value.name)).is_some()).count() > 0;
    for value in &profile.columns {
        if let Some(why) = bad_name(&value.name) {
            left_out.push((value.name.clone(), why));
            continue;
        }
        if names.contains(&value.name.to_ascii_lowercase()) {
            left_out.push((value.name.clone(), "another column has the same name but for its case".to_owned()));
            continue;
        }
        let decided = decide(value, &null_texts, profile, strict);
        if decided.data_type.is_none() {
            left_out.push((value.name.clone(), decided.evidence));
            continue;
        }
        misfits += decided.misfits;
        names.push(value.name.to_ascii_lowercase());
        columns.push(draft_column(value, decided, &null_texts, profile.rows, people));
    }
    let mut remarks = Vec::new();
    if csv.as_ref().is_some_and(|options| !options.header) {
        remarks.push(
            "the first record was taken for data; where it names the columns, take `header: false` out and name them as \
             it does"
                .to_owned(),
        );
    }
    draft_key(table, profile, &null_texts, &mut columns, &mut remarks);
    let mut read = profile.rows;
    for fault in &profile.faults {
        misfits += fault.rows;
        read += fault.rows;
        remarks.push(format!("{} cannot be read: {} (first at {})", records(fault.rows), fault.why, fault.first));
    }
    let newest = newest(profile, &columns);
    let partition = partition(profile, &columns);
    let csv = csv.map(|mut options| {
        options.null_text = std::iter::once(String::new()).chain(null_texts.iter().cloned()).collect();
        options
    });
    for text in &null_texts {
        let texts = profile.columns.iter().filter(|value| {
            value.null_texts.contains_key(text)
                && columns
                    .iter()
                    .any(|draft| draft.column.name == value.name && draft.column.data_type == DataType::String)
        });
        let places: Vec<String> = texts
            .map(|value| {
                format!("{} ({})", value.name, grouped(value.null_texts.get(text).map_or(0, |seen| seen.count)))
            })
            .collect();
        if !places.is_empty() {
            remarks.push(format!("`{text}` is read as null in text columns too: {}", places.join(", ")));
        }
    }
    // A row with several values that do not fit is held back once.
    let misfits = misfits.min(read);
    TableDraft { columns, left_out, csv, remarks, newest, partition, misfits, records: read }
}

/// The null texts that do stand for "no value": they are in the way of a type somewhere.
fn null_texts(columns: &[ValueProfile]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for value in columns {
        let Some((data_type, _)) = value_type(value) else { continue };
        if data_type != DataType::String {
            found.extend(value.null_texts.keys().cloned());
        }
    }
    found.sort();
    found.dedup();
    found
}

/// A type with what speaks for it.
struct Decided {
    data_type: Option<DataType>,
    evidence: String,
    misfits: u64,
    /// Values that do not fit, with how often and where first.
    samples: Vec<(String, Occurrence)>,
    fields: Vec<Column>,
}

/// The narrowest type of a column of text cells or JSON values, and how many values do not fit it. `None` where there is
/// no value.
fn value_type(value: &ValueProfile) -> Option<(DataType, u64)> {
    let total = value.values();
    if total == 0 {
        return None;
    }
    let count = |class| value.count(class);
    let numbers = count(Class::Integer) + count(Class::Decimal) + count(Class::Double);
    let number = if count(Class::Code) > 0 { None } else { number_type(value) };
    let candidates = [
        (count(Class::Boolean), Some(DataType::Boolean)),
        (numbers, number),
        (count(Class::Date), Some(DataType::Date)),
        (count(Class::Time), Some(DataType::Time)),
        (count(Class::Timestamp), Some(DataType::Timestamp)),
        (count(Class::TimestampNtz), Some(DataType::TimestampNtz)),
        (count(Class::Uuid), Some(DataType::Uuid)),
        (count(Class::Json), Some(DataType::Json)),
    ];
    for (fit, data_type) in candidates {
        if let Some(data_type) = data_type
            && fit > 0
            && (total - fit) * 100 < total
        {
            return Some((data_type, total - fit));
        }
    }
    Some((DataType::String, 0))
}

/// The narrowest type that holds every number as it is written; `None` where none does.
fn number_type(value: &ValueProfile) -> Option<DataType> {
    let numbers = value.numbers.as_ref()?;
    let NumberProfile { whole_digits, least_scale, greatest_scale, fit_double, not_finite, .. } = numbers;
    let exponents = value.count(Class::Double) > 0 || *not_finite > 0;
    if value.count(Class::Decimal) == 0 && !exponents {
        // Room to grow: identifiers and large counts are long.
        let id = words(&value.name).iter().any(|word| matches!(word.as_str(), "id" | "key" | "number" | "no" | "nr"));
        let small = numbers.minimum.abs().max(numbers.maximum.abs()) <= 1e9;
        return Some(if small && !id { DataType::Int } else { DataType::Long });
    }
    let money = words(&value.name).iter().any(|word| MONEY.contains(&word.as_str()));
    let even = least_scale == greatest_scale && (1..=4).contains(greatest_scale);
    let digits = whole_digits.max(&1) + greatest_scale;
    let decimal = || {
        let precision = if digits <= 16 { 18 } else { 38 };
        (!exponents && digits <= 38).then_some(DataType::Decimal(precision, *greatest_scale))
    };
    if money && even || !fit_double { decimal() } else { Some(DataType::Double) }
}

const MONEY: [&str; 16] = [
    "amount", "price", "cost", "fee", "total", "balance", "salary", "tax", "revenue", "payment", "charge", "discount",
    "net", "gross", "eur", "usd",
];

fn decide(value: &ValueProfile, null_texts: &[String], profile: &TableProfile, strict: bool) -> Decided {
    let plain = |data_type: DataType, evidence: String| Decided {
        data_type: Some(data_type),
        evidence,
        misfits: 0,
        samples: Vec::new(),
        fields: Vec::new(),
    };
    if let Some(declared) = &value.declared {
        return decide_declared(value, declared);
    }
    let not_null: u64 =
        value.null_texts.iter().filter(|(text, _)| !null_texts.contains(text)).map(|(_, seen)| seen.count).sum();
    let total = value.values();
    if total == 0 {
        let evidence = if not_null == 0 { "no value seen".to_owned() } else { fits(not_null, not_null, value) };
        return plain(DataType::String, evidence);
    }
    let nested = value.count(Class::Object) + value.count(Class::List);
    if nested > 0 {
        return decide_nested(value, null_texts, profile);
    }
    let (mut data_type, mut misfits) = value_type(value).unwrap_or((DataType::String, 0));
    if matches!(profile.origin, Origin::Json) && data_type == DataType::String {
        // A text is no number in JSON: a column that has both is kept as JSON.
        let not_text = value.count(Class::Boolean)
            + value.count(Class::Integer)
            + value.count(Class::Decimal)
            + value.count(Class::Double)
            + value.count(Class::Number);
        if not_text > 0 {
            return plain(DataType::Json, format!("values of several kinds: {}", kinds(value)));
        }
    }
    if !strict && misfits > 0 {
        (data_type, misfits) = (DataType::String, 0);
    }
    let samples = if misfits > 0 { misfit_samples(value, &data_type) } else { Vec::new() };
    let mut evidence =
        fits(total - misfits + if data_type == DataType::String { not_null } else { 0 }, total + not_null, value);
    if not_null > 0 && data_type != DataType::String {
        misfits += not_null;
    }
    if data_type == DataType::String && total > 0 {
        if value.count(Class::Code) > 0 && value.count(Class::Code) + value.count(Class::Integer) == total {
            evidence.push_str("; digits, but leading zeros say it is a code");
        } else if value.count(Class::Text) < total {
            evidence.push_str(&format!("; {}", kinds(value)));
        }
    }
    Decided { data_type: Some(data_type), evidence, misfits, samples, fields: Vec::new() }
}

fn decide_declared(value: &ValueProfile, declared: &DataType) -> Decided {
    let total = value.values();
    let mut data_type = declared.clone();
    let mut evidence = format!("{} in the source", article(declared));
    let mut misfits = 0;
    let mut samples = Vec::new();
    if *declared == DataType::String
        && let Some((narrow, others)) = value_type(value)
        && matches!(
            narrow,
            DataType::Date
                | DataType::Time
                | DataType::Timestamp
                | DataType::TimestampNtz
                | DataType::Uuid
                | DataType::Json
        )
    {
        data_type = narrow;
        misfits = others;
        samples = misfit_samples(value, &data_type);
        evidence = format!("text in the source; {}", fits(total - others, total, value));
    } else if total == 0 {
        evidence.push_str("; no value seen");
    } else if value.distinct > 0 {
        evidence.push_str(&format!("; {}", distinct(value)));
    }
    if *declared == DataType::Double
        && let Some(numbers) = &value.numbers
        && numbers.whole
        && numbers.not_finite == 0
    {
        let narrower = if numbers.maximum.abs().max(numbers.minimum.abs()) <= 1e9 { "int" } else { "long" };
        evidence.push_str(&format!("; every value is whole: {narrower} would hold them too"));
    }
    let (data_type, fields) = declared_parts(value, data_type);
    misfits += inexact(value).map_or(0, |seen| seen.count);
    Decided { data_type: parsable(data_type), evidence, misfits, samples, fields }
}

/// Values that the declared type holds only rounded, those of fields and items too.
fn inexact(value: &ValueProfile) -> Option<Occurrence> {
    let parts = value.fields.iter().chain(value.items.as_deref());
    parts
        .filter_map(inexact)
        .chain(value.inexact)
        .reduce(|a, b| Occurrence { count: a.count + b.count, first: a.first.min(b.first) })
}

/// Marks what is personal data within a declared type.
fn declared_parts(value: &ValueProfile, data_type: DataType) -> (DataType, Vec<Column>) {
    let DataType::Struct(columns) = data_type else { return (data_type, Vec::new()) };
    let marked: Vec<Column> = columns
        .into_iter()
        .map(|mut column| {
            if let Some(field) = value.fields.iter().find(|field| field.name == column.name) {
                column.pii = suspicion(field, true).is_some();
                column.data_type = declared_parts(field, column.data_type).0;
            }
            column
        })
        .collect();
    (DataType::Struct(marked.clone()), marked)
}

/// A type that a manifest can spell: names within a type's text are words.
fn parsable(data_type: DataType) -> Option<DataType> {
    fn named(data_type: &DataType) -> bool {
        match data_type {
            DataType::Struct(columns) => {
                !columns.is_empty()
                    && columns.iter().all(|column| bad_name(&column.name).is_none() && named(&column.data_type))
            }
            DataType::Array(item) => named(&item.data_type),
            DataType::Map(_, value) => {
                named(&value.data_type) && !matches!(value.data_type, DataType::Struct(_))
                    || DataType::parse(&data_type.to_string()).is_ok()
            }
            _ => true,
        }
    }
    named(&data_type).then_some(data_type)
}

fn decide_nested(value: &ValueProfile, null_texts: &[String], profile: &TableProfile) -> Decided {
    let total = value.values();
    let document = |why: String| Decided {
        data_type: Some(DataType::Json),
        evidence: why,
        misfits: 0,
        samples: Vec::new(),
        fields: Vec::new(),
    };
    let (objects, lists) = (value.count(Class::Object), value.count(Class::List));
    if objects != total && lists != total {
        return document(format!("values of several kinds: {}", kinds(value)));
    }
    let evidence = fits_plain(total, total);
    let parsed = |data_type: DataType| DataType::parse(&data_type.to_string()).is_ok();
    if lists == total {
        let Some(items) = &value.items else {
            let data_type = DataType::Array(Box::new(Column::anonymous("item", DataType::String)));
            return Decided {
                data_type: Some(data_type),
                evidence: format!("{evidence}; always empty"),
                misfits: 0,
                samples: Vec::new(),
                fields: Vec::new(),
            };
        };
        let item = decide_part(items, null_texts, profile);
        let fields = item.fields.clone();
        let Some(inner) = item.data_type else { return document("its items are of several kinds".to_owned()) };
        // An array of JSON documents says nothing that a JSON document does not.
        if item.misfits > 0 || (inner != DataType::String && inner == DataType::Json) {
            return document(format!("lists of {}", kinds(items)));
        }
        let data_type = DataType::Array(Box::new(Column::anonymous("item", inner.clone())));
        if matches!(inner, DataType::Struct(_)) || parsed(data_type.clone()) {
            return Decided { data_type: Some(data_type), evidence, misfits: 0, samples: Vec::new(), fields };
        }
        return document("lists too deep for a type".to_owned());
    }
    if value.fields.is_empty() {
        return document("objects, always empty".to_owned());
    }
    let names: Vec<String> = value.fields.iter().map(|field| field.name.to_ascii_lowercase()).collect();
    let clash = names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
    if value.too_many_fields || clash || value.fields.iter().any(|field| bad_name(&field.name).is_some()) {
        return document("objects whose keys are no names of fields".to_owned());
    }
    let mut columns = Vec::new();
    for field in &value.fields {
        let part = decide_part(field, null_texts, profile);
        let Some(data_type) = part.data_type.filter(|_| part.misfits == 0) else {
            return document(format!("field `{}` has values of several kinds", field.name));
        };
        let mut column = Column::anonymous(&field.name, data_type);
        column.pii = suspicion(field, true).is_some();
        columns.push(column);
    }
    let evidence = format!("{evidence}; {} fields", columns.len());
    Decided {
        data_type: Some(DataType::Struct(columns.clone())),
        evidence,
        misfits: 0,
        samples: Vec::new(),
        fields: columns,
    }
}

/// A nested value has a type only where every value fits it.
fn decide_part(value: &ValueProfile, null_texts: &[String], profile: &TableProfile) -> Decided {
    let mut decided = decide(value, null_texts, profile, false);
    if let Some(DataType::Array(item)) = &decided.data_type
        && matches!(item.data_type, DataType::Struct(_))
        && DataType::parse(&DataType::Array(item.clone()).to_string()).is_err()
    {
        decided.data_type = Some(DataType::Json);
    }
    decided
}

/// Values of other classes than those that `data_type` reads, the most frequent first.
fn misfit_samples(value: &ValueProfile, data_type: &DataType) -> Vec<(String, Occurrence)> {
    let reads = |class: &Class| match data_type {
        DataType::Boolean => *class == Class::Boolean,
        DataType::Int | DataType::Long | DataType::Double | DataType::Float | DataType::Decimal(..) => {
            matches!(class, Class::Integer | Class::Decimal | Class::Double)
        }
        DataType::Date => *class == Class::Date,
        DataType::Time => *class == Class::Time,
        DataType::Timestamp => *class == Class::Timestamp,
        DataType::TimestampNtz => *class == Class::TimestampNtz,
        DataType::Uuid => *class == Class::Uuid,
        DataType::Json => *class == Class::Json,
        _ => true,
    };
    let others = value.classes.iter().filter(|(class, _)| !reads(class));
    let mut samples: Vec<_> = others.flat_map(|(_, class)| class.samples.clone()).collect();
    samples.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.1.first.cmp(&b.1.first)));
    samples
}

fn draft_column(value: &ValueProfile, decided: Decided, null_texts: &[String], rows: u64, people: bool) -> ColumnDraft {
    let Decided { data_type, evidence: type_evidence, misfits, samples, fields: _ } = decided;
    let mut column = Column::anonymous(&value.name, data_type.unwrap_or(DataType::String));
    let mut draft_evidence = BTreeMap::new();
    let mut remarks = Vec::new();
    let mut suggestions = Vec::new();
    let suspicion = suspicion(value, people);
    column.pii = suspicion.is_some();
    let protected = column.is_protected();
    let personal = personal(value);
    // INVARIANT: no value of such a column is shown, neither as a promise nor in a comment.
    let hidden = protected || !personal.is_empty();
    let inexact = inexact(value);
    let misfits = misfits - inexact.map_or(0, |seen| seen.count);
    if let Some(seen) = inexact {
        remarks.push(format!(
            "{} finer than the type (dates are whole days, times whole microseconds) and would be quarantined (first at {})",
            if seen.count == 1 { "1 value is".to_owned() } else { format!("{} values are", grouped(seen.count)) },
            seen.first
        ));
    }
    if misfits > 0 {
        let shown: Vec<String> = samples
            .iter()
            .take(5)
            .map(|(text, seen)| {
                let text = if hidden { "***".to_owned() } else { quoted(text) };
                let times = if seen.count > 1 { format!(" ({})", grouped(seen.count)) } else { String::new() };
                format!("{text}{times} at {}", seen.first)
            })
            .collect();
        let more = if samples.len() > 5 { ", …" } else { "" };
        let verb = if misfits == 1 { "value does" } else { "values do" };
        remarks.push(format!(
            "{} {verb} not fit and would be quarantined: {}{more}",
            grouped(misfits),
            shown.join(", ")
        ));
    }
    let nulls = nulls(value, null_texts);
    if nulls == 0 && rows >= FEW_ROWS {
        column.required = true;
        draft_evidence.insert("required", format!("never null in {} rows", grouped(rows)));
    } else if nulls > 0 {
        remarks.push(format!("{} of {} are null ({})", grouped(nulls), grouped(rows), percent(nulls, rows)));
    }
    let of_text = column.data_type == DataType::String;
    let mut enumerated = false;
    if of_text && !hidden {
        let values: Vec<&(String, u64)> = value.top.iter().collect();
        let kept = null_texts_kept(value, null_texts);
        let all: Vec<(String, u64)> = values.iter().map(|entry| (*entry).clone()).chain(kept).collect();
        let total: u64 = all.iter().map(|(_, count)| count).sum();
        let short = value.lengths.is_some_and(|(_, most)| most <= ENUM_LENGTH);
        let few = value.top_whole && !all.is_empty() && all.len() <= ENUM_VALUES && short;
        if few && total >= all.len() as u64 * ENUM_REPEATS && total >= FEW_ROWS {
            let mut words: Vec<String> = all.iter().map(|(text, _)| text.clone()).collect();
            words.sort();
            let rarest = all.iter().map(|(_, count)| *count).min().unwrap_or(0);
            if rarest > 1 && words.iter().all(|word| word.trim() == word) {
                draft_evidence
                    .insert("enum", format!("{} different, the rarest stands {} times", words.len(), grouped(rarest)));
                column.constraints.allowed = Some(words);
                enumerated = true;
            } else {
                suggestions.push((
                    format!("enum: [{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")),
                    "the rarest stands once".to_owned(),
                ));
            }
        }
    }
    if of_text {
        draft_format(value, &mut column, &mut draft_evidence, &mut suggestions);
    }
    if column.data_type.is_ordered() && column.data_type != DataType::String && !hidden {
        draft_range(value, &mut column, &mut draft_evidence, &mut suggestions);
    }
    if of_text
        && !enumerated
        && let Some((least, most)) = value.lengths
    {
        remarks.push(if least == most {
            format!("always {most} characters")
        } else {
            format!("{} to {} characters", grouped(least), grouped(most))
        });
    }
    if of_text && !protected && value.bearing(Sign::ForeignDate) * 100 >= value.values() * 99 && value.values() > 0 {
        remarks.push("looks like dates; datamesh reads dates as YYYY-MM-DD".to_owned());
    }
    if !protected {
        for (sign, count) in personal {
            let (count, verb) = if count == 1 { ("1 value".to_owned(), "s") } else { (grouped(count) + " values", "") };
            remarks.push(match sign {
                Sign::ContainsEmail => format!("{count} contain{verb} an e-mail address"),
                Sign::ContainsNumber => {
                    format!("{count} contain{verb} a telephone, card or account number, or an IP address")
                }
                Sign::Email => format!("{count} look{verb} like an e-mail address"),
                Sign::Phone => format!("{count} look{verb} like a telephone number"),
                Sign::Card => format!("{count} look{verb} like a payment card number"),
                Sign::Iban => format!("{count} look{verb} like an IBAN"),
                _ => format!("{count} look{verb} like an IP address"),
            });
        }
    }
    ColumnDraft { column, type_evidence, evidence: draft_evidence, remarks, suggestions, suspicion }
}

/// The signs of personal data that any value of a column bears, with how many do; also where they are too few to
/// suspect the column.
fn personal(value: &ValueProfile) -> Vec<(Sign, u64)> {
    [
        Sign::Email,
        Sign::ContainsEmail,
        Sign::Phone,
        Sign::Card,
        Sign::Iban,
        Sign::Ipv4,
        Sign::Ipv6,
        Sign::ContainsNumber,
    ]
    .into_iter()
    .map(|sign| (sign, value.bearing(sign)))
    .filter(|(sign, count)| *count > 0 && !(*sign == Sign::Ipv4 && names_a_version(&words(&value.name))))
    .collect()
}

/// Four numbers with dots are a version where the name says so.
fn names_a_version(words: &[String]) -> bool {
    words.iter().any(|word| matches!(word.as_str(), "version" | "release" | "build" | "firmware"))
}

/// Null texts of a column that are words here.
fn null_texts_kept(value: &ValueProfile, null_texts: &[String]) -> Vec<(String, u64)> {
    let kept = value.null_texts.iter().filter(|(text, _)| !null_texts.contains(text));
    kept.map(|(text, seen)| (text.clone(), seen.count)).collect()
}

fn nulls(value: &ValueProfile, null_texts: &[String]) -> u64 {
    let read_as_null = value.null_texts.iter().filter(|(text, _)| null_texts.contains(text));
    value.nulls + read_as_null.map(|(_, seen)| seen.count).sum::<u64>()
}

/// A well-known format that every text has.
fn draft_format(
    value: &ValueProfile,
    column: &mut Column,
    evidence: &mut BTreeMap<&'static str, String>,
    suggestions: &mut Vec<(String, String)>,
) {
    let total = value.values();
    let kept = value.null_texts.values().map(|seen| seen.count).sum::<u64>();
    for (sign, format, word) in [
        (Sign::Email, TextFormat::Email, "email"),
        (Sign::Uri, TextFormat::Uri, "uri"),
        (Sign::Ipv4, TextFormat::Ipv4, "ipv4"),
        (Sign::Ipv6, TextFormat::Ipv6, "ipv6"),
        (Sign::Hostname, TextFormat::Hostname, "hostname"),
    ] {
        let bearing = value.bearing(sign);
        if bearing == 0 || total == 0 || bearing * 100 < total * 95 {
            continue;
        }
        if sign == Sign::Ipv4 && names_a_version(&words(&value.name)) {
            return;
        }
        let why = format!("{} of {} values", grouped(bearing), grouped(total));
        // One value that is none would be quarantined; then it is for a person to decide.
        if bearing == total && kept == 0 && total >= 10 && word != "hostname" {
            column.constraints.format = Some(format);
            evidence.insert("format", why);
        } else {
            suggestions.push((format!("format: {word}"), why));
        }
        return;
    }
}

/// Ranges that nature or the calendar gives, where every value keeps them; else what was seen is a suggestion.
fn draft_range(
    value: &ValueProfile,
    column: &mut Column,
    evidence: &mut BTreeMap<&'static str, String>,
    suggestions: &mut Vec<(String, String)>,
) {
    let (Some((least, greatest)), Some(numbers)) = (&value.range, &value.numbers) else { return };
    let seen = format!("{least} to {greatest}");
    if column.data_type.is_numeric() && numbers.not_finite == 0 && value.rows >= FEW_ROWS {
        let words = words(&value.name);
        let is = |known: &[&str]| words.last().is_some_and(|word| known.contains(&word.as_str()));
        let natural: Option<(&str, Option<&str>)> = if is(&["month"]) {
            Some(("1", Some("12")))
        } else if is(&["day"]) {
            Some(("1", Some("31")))
        } else if is(&["hour"]) {
            Some(("0", Some("23")))
        } else if is(&["minute", "second"]) {
            Some(("0", Some("59")))
        } else if is(&["lat", "latitude"]) {
            Some(("-90", Some("90")))
        } else if is(&["lon", "lng", "longitude"]) {
            Some(("-180", Some("180")))
        } else if is(&[
            "count", "quantity", "qty", "distance", "duration", "age", "seats", "size", "weight", "length", "price",
        ]) {
            Some(("0", None))
        } else {
            None
        };
        if let Some((low, high)) = natural
            && low.parse().is_ok_and(|low: f64| numbers.minimum >= low)
            && high.is_none_or(|high| high.parse().is_ok_and(|high: f64| numbers.maximum <= high))
        {
            column.constraints.minimum = Some(low.to_owned());
            column.constraints.maximum = high.map(str::to_owned);
            evidence.insert("minimum", format!("seen: {seen}"));
            return;
        }
    }
    suggestions.push((format!("minimum: {}", bound(least)), format!("seen: {seen}")));
    suggestions.push((format!("maximum: {}", bound(greatest)), String::new()));
}

fn bound(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-') && text.parse::<f64>().is_ok() {
        text.to_owned()
    } else {
        format!("'{text}'")
    }
}

/// A primary key: a column without nulls whose values are all different.
fn draft_key(
    table: &str,
    profile: &TableProfile,
    null_texts: &[String],
    columns: &mut [ColumnDraft],
    remarks: &mut Vec<String>,
) {
    if profile.rows < 2 {
        return;
    }
    let fits = |draft: &ColumnDraft| -> Option<u32> {
        let (at, value) = profile.columns.iter().enumerate().find(|(_, value)| value.name == draft.column.name)?;
        let usable = matches!(
            draft.column.data_type,
            DataType::String
                | DataType::Uuid
                | DataType::Int
                | DataType::Long
                | DataType::Date
                | DataType::Timestamp
                | DataType::TimestampNtz
        );
        let texts_once = null_texts_kept(value, null_texts).iter().all(|(_, count)| *count == 1);
        if !usable || value.unique != Some(true) || nulls(value, null_texts) > 0 || !texts_once || value.values() == 0 {
            return None;
        }
        let words = words(&value.name);
        let last = words.last().map(String::as_str).unwrap_or_default();
        let named = words.len() == 1 && KEY_WORDS.contains(&last)
            || words.join("_") == format!("{}_id", table.to_ascii_lowercase().replace('-', "_").trim_end_matches('s'));
        let like = KEY_WORDS.contains(&last) || matches!(draft.column.data_type, DataType::Uuid);
        let time = matches!(draft.column.data_type, DataType::Date | DataType::Timestamp | DataType::TimestampNtz);
        let long = value.lengths.is_some_and(|(_, most)| most > 64);
        // In a small table anything is unique by chance; only a name that says so is believed.
        if !like && profile.rows < 10 || long {
            return None;
        }
        let rank = if named {
            0
        } else if like {
            1000
        } else if time {
            4000
        } else if at == 0 {
            2000
        } else {
            3000
        };
        Some(rank + at as u32)
    };
    let ranked: Vec<Option<u32>> = columns.iter().map(fits).collect();
    let best = ranked.iter().enumerate().filter_map(|(at, rank)| Some(((*rank)?, at))).min();
    for (at, draft) in columns.iter_mut().enumerate() {
        if ranked[at].is_none() {
            continue;
        }
        let every = format!("every one of {} values differs", grouped(profile.rows));
        if best.is_some_and(|(_, best)| best == at) {
            draft.column.primary_key = true;
            draft.column.required = false;
            draft.evidence.remove("required");
            draft.evidence.insert("primaryKey", format!("{every}, none is null"));
        } else {
            draft.suggestions.push(("unique: true".to_owned(), every));
        }
    }
    if best.is_none() {
        let known = |name: &String| {
            columns.iter().any(|draft| draft.column.name == *name && draft.column.data_type.is_scalar())
        };
        for (a, b) in profile.pairs.iter().filter(|(a, b)| known(a) && known(b)) {
            remarks.push(format!(
                "no single key; unique: [[{a}, {b}]] holds in the first {} rows",
                grouped(profile.pair_rows)
            ));
        }
    }
}

const KEY_WORDS: [&str; 12] =
    ["id", "key", "code", "uuid", "guid", "number", "no", "nr", "sku", "isbn", "iban", "tailnum"];

/// The newest value of the column that most likely says when a row was current.
fn newest(profile: &TableProfile, columns: &[ColumnDraft]) -> Option<(String, String)> {
    let times = columns.iter().filter(|draft| {
        matches!(draft.column.data_type, DataType::Timestamp | DataType::TimestampNtz | DataType::Date)
            && !draft.column.is_protected()
            && profile.columns.iter().any(|value| value.name == draft.column.name && personal(value).is_empty())
    });
    let rank = |draft: &&ColumnDraft| {
        let words = words(&draft.column.name);
        let updated = words.iter().any(|word| matches!(word.as_str(), "updated" | "modified" | "changed" | "loaded"));
        let day = draft.column.data_type == DataType::Date;
        (!updated, day)
    };
    let best = times.min_by_key(rank)?;
    let value = profile.columns.iter().find(|value| value.name == best.column.name)?;
    Some((best.column.name.clone(), value.range.as_ref()?.1.clone()))
}

fn partition(profile: &TableProfile, columns: &[ColumnDraft]) -> Option<String> {
    let (name, _) = newest(profile, columns)?;
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (profile.rows >= LARGE && plain).then(|| format!("month({name})"))
}

/// Why a column looks like personal data. `people`: other columns of the table name a person.
pub fn suspicion(value: &ValueProfile, people: bool) -> Option<String> {
    let total = value.values();
    let words = words(&value.name);
    let version = names_a_version(&words);
    if total > 0 {
        let share = |sign: Sign, least: u64| {
            let bearing = value.bearing(sign);
            (bearing * 100 >= total * least && bearing > 0).then_some(bearing)
        };
        let several = value.distinct >= 3 || total < 3;
        for (sign, least, what) in [
            (Sign::Email, 50, "e-mail addresses"),
            (Sign::Iban, 80, "IBANs (check digits hold)"),
            (Sign::Ipv4, 80, "IP addresses"),
            (Sign::Ipv6, 80, "IP addresses"),
            (Sign::Phone, 80, "telephone numbers"),
        ] {
            if let Some(bearing) = share(sign, least).filter(|_| sign != Sign::Ipv4 || !version) {
                return Some(format!("{} of {} values are {what}", grouped(bearing), grouped(total)));
            }
        }
        // One number in ten passes the Luhn check by chance.
        if let Some(bearing) = share(Sign::Card, 95).filter(|_| several) {
            return Some(format!(
                "{} of {} values are payment card numbers (Luhn holds)",
                grouped(bearing),
                grouped(total)
            ));
        }
    }
    let text = value
        .declared
        .as_ref()
        .is_none_or(|declared| !matches!(declared, DataType::Boolean | DataType::Float | DataType::Double))
        && (total == 0 || value.count(Class::Boolean) < total);
    let joined = words.join("_");
    let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let found = names_a_person(&words).or_else(|| {
        if has(&["ssn", "passport", "nino", "personnummer", "aadhaar", "cpf", "curp"])
            || [
                "social_security",
                "national_id",
                "identity_card",
                "driver_license",
                "drivers_license",
                "driving_licence",
                "tax_id",
                "insurance_number",
            ]
            .iter()
            .any(|known| joined.contains(known))
        {
            Some("a national identifier")
        } else if has(&["dob", "birthday", "birthdate", "birth"])
            && !has(&["place", "country", "city", "rate", "weight"])
        {
            Some("a date of birth")
        } else if has(&["email", "mail"]) && has(&["email", "address"]) || joined == "e_mail" || joined == "mail" {
            Some("an e-mail address")
        } else if has(&["phone", "telephone", "mobile", "cellphone", "fax"]) && !has(&["type", "model", "brand"]) {
            Some("a telephone number")
        } else if has(&["iban"]) || joined.contains("card_number") || joined.contains("credit_card") {
            Some("an account or card number")
        } else if people && name_only(&words) {
            Some("a person's name, beside other personal columns")
        } else {
            None
        }
    });
    found.filter(|_| text).map(|what| format!("its name says {what}"))
}

fn name_only(words: &[String]) -> bool {
    words.len() == 1 && words[0] == "name"
}

fn names_a_person(words: &[String]) -> Option<&'static str> {
    let joined = words.join("_");
    let named = [
        "first_name",
        "firstname",
        "last_name",
        "lastname",
        "surname",
        "family_name",
        "given_name",
        "full_name",
        "fullname",
        "middle_name",
        "maiden_name",
        "forename",
        "customer_name",
        "contact_name",
        "employee_name",
        "patient_name",
        "person_name",
        "passenger_name",
        "cardholder",
        "account_holder",
        "vorname",
        "nachname",
    ];
    named.iter().any(|known| joined == *known || joined.ends_with(&format!("_{known}"))).then_some("a person's name")
}

/// The words of a name, in lower case: `customerId`, `customer_id` and `Customer ID` are the same.
pub fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() {
            words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
        } else {
            if c.is_uppercase() && before.is_lowercase() {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
            }
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// Why no column of a contract can have this name.
fn bad_name(name: &str) -> Option<String> {
    crate::contract::bad_column_name(name)
}

fn fits(fit: u64, total: u64, value: &ValueProfile) -> String {
    format!("{}; {}", fits_plain(fit, total), distinct(value))
}

fn fits_plain(fit: u64, total: u64) -> String {
    format!("{} of {} values fit", grouped(fit), grouped(total))
}

fn distinct(value: &ValueProfile) -> String {
    let about = if value.distinct_exact { "" } else { "about " };
    format!("{about}{} distinct", grouped(value.distinct))
}

fn kinds(value: &ValueProfile) -> String {
    let mut kinds: Vec<(u64, String)> = value
        .classes
        .iter()
        .map(|(class, found)| {
            let word = match class {
                Class::Boolean => "booleans",
                Class::Integer => "whole numbers",
                Class::Decimal | Class::Double => "numbers",
                Class::Number => "numbers that no type holds",
                Class::Date => "dates",
                Class::Time => "times",
                Class::Timestamp => "timestamps",
                Class::TimestampNtz => "local timestamps",
                Class::Uuid => "UUIDs",
                Class::Json => "JSON texts",
                Class::Code => "codes",
                Class::Text => "other texts",
                Class::Bytes => "bytes",
                Class::Object => "objects",
                Class::List => "lists",
            };
            (found.count, format!("{} {word}", grouped(found.count)))
        })
        .collect();
    kinds.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    kinds.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

fn article(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "struct".to_owned(),
        other => other.to_string(),
    }
}

fn records(count: u64) -> String {
    if count == 1 { "1 record".to_owned() } else { format!("{} records", grouped(count)) }
}

fn percent(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    if percent > 0.0 && percent < 0.1 { "less than 0.1%".to_owned() } else { format!("{percent:.1}%") }
}

/// A value as evidence shows it: short, on one line.
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if text.chars().count() > 40 { "…" } else { "" };
    format!("\"{}{more}\"", short.escape_debug())
}

/// Numbers as people group them.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_names() {
        for (name, expected) in [
            ("customerId", vec!["customer", "id"]),
            ("Customer ID", vec!["customer", "id"]),
            ("e-mail", vec!["e", "mail"]),
            ("dep_time", vec!["dep", "time"]),
            ("ID", vec!["id"]),
            ("", vec![]),
        ] {
            assert_eq!(words(name), expected, "{name}");
        }
    }

    fn named(name: &str) -> Option<String> {
        suspicion(&ValueProfile { name: name.to_owned(), ..ValueProfile::default() }, false)
    }

    #[test]
    fn names_raise_suspicion() {
        for name in [
            "first_name",
            "customerName",
            "Last Name",
            "ssn",
            "date_of_birth",
            "dob",
            "email",
            "E-Mail",
            "mobile_phone",
            "passport_no",
            "national_id",
        ] {
            assert!(named(name).is_some(), "{name}");
        }
        for name in [
            "name",
            "carrier",
            "mailing_list_size",
            "birth_place",
            "assignment",
            "phone_type",
            "username_count",
            "origin",
            "year",
        ] {
            assert!(named(name).is_none(), "{name}");
        }
        assert!(suspicion(&ValueProfile { name: "name".to_owned(), ..ValueProfile::default() }, true).is_some());
    }
}
