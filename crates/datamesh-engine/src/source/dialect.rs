//! How a delimited text is written: its delimiter, its quote, and whether the first record names the columns.

use datamesh_core::contract::CsvOptions;
use datamesh_core::infer::words;
use datamesh_core::profile::Sign;
use datamesh_core::{DataType, scalar};
use datamesh_quality::detect;

use super::csv::{Tokens, cells, tokenize};

/// Records that are looked at.
const RECORDS: usize = 1000;

/// Detects the dialect from the beginning of a text. `whole`: the text is the whole file, so that its last record is
/// complete.
pub(super) fn detect(text: &[u8], whole: bool) -> CsvOptions {
    let mut best: Option<(f64, CsvOptions, Vec<Vec<String>>)> = None;
    for quote in [Some('"'), Some('\''), None] {
        for delimiter in [',', ';', '\t', '|', '^'] {
            let options = CsvOptions { delimiter, quote, ..CsvOptions::default() };
            let Some((score, records)) = score(text, whole, &options) else { continue };
            if best.as_ref().is_none_or(|(known, ..)| score > *known + 1e-9) {
                best = Some((score, options, records));
            }
        }
    }
    let Some((_, mut options, records)) = best else { return CsvOptions::default() };
    options.header = has_header(&records);
    options
}

/// How well a dialect explains the text: most records have the same number of fields, and that is more than one.
fn score(text: &[u8], whole: bool, options: &CsvOptions) -> Option<(f64, Vec<Vec<String>>)> {
    let mut records: Vec<Vec<String>> = Vec::new();
    let (mut at, mut broken, mut quoted) = (0, 0_usize, 0_usize);
    let mut fields = Vec::new();
    while at < text.len() && records.len() + broken < RECORDS {
        let line_end = memchr::memchr(b'\n', &text[at..]).map(|end| at + end + 1);
        if line_end.is_none() && !whole {
            break;
        }
        let line = &text[at..line_end.unwrap_or(text.len())];
        if line.trim_ascii().is_empty() {
            at += line.len();
            continue;
        }
        // Without a quote character no byte can be one.
        let quote = options.quote.map_or(0, |quote| quote as u8);
        match tokenize(&text[at..], options.delimiter as u8, quote, whole, &mut fields) {
            Tokens::Record { whole: length, .. } => {
                let record = &text[at..at + length];
                quoted += usize::from(options.quote.is_some() && record.contains(&quote));
                records.push(cells(record, &fields, options.quote));
                at += length;
            }
            Tokens::Open | Tokens::Broken(_) => {
                broken += 1;
                at += line.len();
            }
        }
    }
    let total = records.len() + broken;
    let mut widths: Vec<usize> = records.iter().map(Vec::len).collect();
    widths.sort_unstable();
    let width = *widths.get(widths.len() / 2)?;
    let same = widths.iter().filter(|other| **other == width).count();
    let share = same as f64 / total as f64;
    // Several columns are better than one; a quote character that is there to quote is better than none.
    let columns = if width > 1 { 1.0 + (width.min(100) as f64).ln() / 100.0 } else { 0.5 };
    let quotes = match options.quote {
        Some(_) if quoted > 0 => 0.02,
        Some('"') => 0.015,
        Some(_) => 0.0,
        None => 0.01,
    };
    Some((share * columns + quotes, records))
}

/// Whether the first record names the columns: its cells are names, and not such values as the records below have.
fn has_header(records: &[Vec<String>]) -> bool {
    let Some((first, rest)) = records.split_first() else { return true };
    let years = has_years(first, rest);
    let named = |cell: &String| {
        cell.chars().any(char::is_alphabetic) && !is_value(cell) && !is_personal(cell) || years && is_year(cell)
    };
    let given: Vec<&String> = first.iter().filter(|cell| !cell.trim().is_empty()).collect();
    if given.is_empty() || given.iter().filter(|cell| named(cell)).count() * 5 < given.len() * 4 {
        return false;
    }
    let mut distinct: Vec<String> = given.iter().map(|cell| cell.trim().to_ascii_lowercase()).collect();
    distinct.sort();
    distinct.dedup();
    // Where each column has a name of its own, less is needed to believe it. What a delimiter at the end of each record
    // makes is no column.
    let empty =
        |column: usize| records.iter().all(|record| record.get(column).is_none_or(|cell| cell.trim().is_empty()));
    let columns: Vec<usize> = (0..first.len()).filter(|column| !empty(*column)).collect();
    let whole = distinct.len() == columns.len();
    if rest.is_empty() {
        return whole;
    }
    if has_index(first, rest) {
        return true;
    }
    // A column of values below a name settles it.
    let typed = (0..first.len()).any(|column| {
        let cells: Vec<&String> =
            rest.iter().filter_map(|record| record.get(column)).filter(|cell| !cell.is_empty()).collect();
        let values = cells.iter().filter(|cell| is_value(cell)).count();
        named(&first[column]) && !cells.is_empty() && values * 5 >= cells.len() * 4
    });
    if typed {
        return true;
    }
    // All text: the first record names the columns unless one of its cells stands below too, or reads like a sentence.
    let repeated = columns.iter().any(|column| rest.iter().any(|record| record.get(*column) == first.get(*column)));
    whole && !repeated && first.iter().all(|cell| cell.len() <= 64 && words(cell).len() <= 5)
}

/// Whether the first column has no name and numbers its rows, as an index that was written along does.
fn has_index(first: &[String], rest: &[Vec<String>]) -> bool {
    let numbers: Option<Vec<u64>> = rest.iter().map(|record| record.first()?.trim().parse().ok()).collect();
    first.len() > 1
        && first[0].trim().is_empty()
        && numbers.is_some_and(|numbers| !numbers.is_empty() && numbers.windows(2).all(|pair| pair[0] < pair[1]))
}

/// Whether cells of the first record are years that go up by one, and no record below has years there too: then they name
/// what stands below them.
fn has_years(first: &[String], rest: &[Vec<String>]) -> bool {
    let places: Vec<usize> = (0..first.len()).filter(|at| is_year(&first[*at])).collect();
    let year = |at: &usize| first[*at].trim().parse::<u32>().unwrap_or(0);
    places.len() >= 2
        && places.windows(2).all(|pair| year(&pair[0]) + 1 == year(&pair[1]))
        && !rest.is_empty()
        && !rest.iter().any(|record| places.iter().all(|at| record.get(*at).is_some_and(|cell| is_year(cell))))
}

fn is_year(cell: &str) -> bool {
    let cell = cell.trim();
    cell.len() == 4
        && matches!(cell.get(..2), Some("18" | "19" | "20" | "21"))
        && cell.bytes().all(|b| b.is_ascii_digit())
}

/// Nobody names a column by an address, a telephone number, a card or an account.
fn is_personal(cell: &str) -> bool {
    let mut found = false;
    detect::signs(cell.trim(), |sign| {
        found |= matches!(sign, Sign::Email | Sign::Phone | Sign::Card | Sign::Iban | Sign::Ipv4 | Sign::Ipv6);
    });
    found
}

fn is_value(cell: &str) -> bool {
    let cell = cell.trim();
    scalar::double(cell).is_some()
        || [
            DataType::Boolean,
            DataType::Date,
            DataType::Time,
            DataType::Timestamp,
            DataType::TimestampNtz,
            DataType::Uuid,
        ]
        .iter()
        .any(|data_type| scalar::parse(cell, data_type).is_ok())
        || detect::is_foreign_date(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, delimiter: char, quote: Option<char>, header: bool) {
        let found = detect(text.as_bytes(), true);
        assert_eq!((found.delimiter, found.quote, found.header), (delimiter, quote, header), "{text}");
    }

    #[test]
    fn dialects_are_told_apart() {
        check("id,name\n1,a\n2,b\n", ',', Some('"'), true);
        check("id;name\n1;a,b\n2;c,d\n", ';', Some('"'), true);
        check("id\tname\n1\ta b\n", '\t', Some('"'), true);
        check("id|name|x\n1|a|2\n", '|', Some('"'), true);
        check("id;price\n1;1,50\n2;2,75\n3;3,00\n", ';', Some('"'), true);
        check("1,a\n2,b\n", ',', Some('"'), false);
        check("id,text\n1,\"a,b\nc\"\n2,\"x;y;z\"\n", ',', Some('"'), true);
        check("id,text\n1,'a,b'\n2,'x,y'\n3,'c,d'\n", ',', Some('\''), true);
        check("id,size\n1,5\" pipe\n2,6\" pipe\n3,7\" pipe\n", ',', None, true);
        check("name\nada\ngrace\n", ',', Some('"'), true);
        check("carrier,name\nUA,United\nAA,American\n", ',', Some('"'), true);
        check("UA,United\nAA,American\nUA,Other\n", ',', Some('"'), false);
        check(",name,amount\n0,Anna,1.5\n1,Bob,2.5\n", ',', Some('"'), true);
        check("id,amount,amount\n1,2,3\n", ',', Some('"'), true);
        check("ID,id\n1,2\n", ',', Some('"'), true);
        check("a,b,\n1,2,\n3,4,\n", ',', Some('"'), true);
        check("a,,\nx,y,z\n", ',', Some('"'), false);
        check("a,b,\nx,y,\nz,w,\n", ',', Some('"'), true);
        check(",name,city\n0,Anna,Berlin\n3,Bob,Paris\n", ',', Some('"'), true);
        check(",name,city\nx,Anna,Berlin\ny,Bob,Paris\n", ',', Some('"'), false);
        check("country,2020,2021\nDE,1,2\nFR,3,4\n", ',', Some('"'), true);
        check("DE,2020,2021\nFR,2019,2021\n", ',', Some('"'), false);
        check("bob@example.com,Bob\nann@example.com,Ann\n", ',', Some('"'), false);
        check("", ',', Some('"'), true);
    }
}
