//! What a text looks like: well-known formats, and values that are personal data.
//!
//! These are suspicions for a person to review, so they lean to too many rather than too few; check digits keep
//! ordinary numbers out.

use datamesh_core::contract::TextFormat;
use datamesh_core::profile::Sign;

use crate::format::matches;

/// Every sign that a text bears. Empty text bears none.
pub fn signs(text: &str, mut found: impl FnMut(Sign)) {
    if text.is_empty() || text.len() > 2048 {
        return;
    }
    let bytes = text.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if text.contains('@') {
        if matches(TextFormat::Email, text) && text.rsplit_once('@').is_some_and(|(_, host)| host.contains('.')) {
            found(Sign::Email);
        } else if has_email(text) {
            found(Sign::ContainsEmail);
        }
    }
    if bytes.contains(&b':') {
        if matches(TextFormat::Ipv6, text) {
            found(Sign::Ipv6);
        } else if text.contains("://") && matches(TextFormat::Uri, text) {
            found(Sign::Uri);
        }
    }
    if digits >= 4 && bytes.iter().filter(|byte| **byte == b'.').count() == 3 && matches(TextFormat::Ipv4, text) {
        found(Sign::Ipv4);
    } else if is_dotted_name(text) {
        found(Sign::Hostname);
    }
    if digits >= 7 && is_phone(text) {
        found(Sign::Phone);
    }
    if digits >= 13 && is_card(text) {
        found(Sign::Card);
    }
    if digits >= 8 && is_iban(text) {
        found(Sign::Iban);
    }
    if digits >= 4 && is_foreign_date(text) {
        found(Sign::ForeignDate);
    }
    if digits >= 4 && has_number(text) {
        found(Sign::ContainsNumber);
    }
}

/// Whether a telephone, card or account number or an IP address stands among other words.
fn has_number(text: &str) -> bool {
    let has_letter = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if !has_letter || !text.contains([' ', ',', ';', ':', '\n', '\t']) || is_iban(text) {
        return false;
    }
    let mut before = ' ';
    let mut run = String::new();
    // Groups of digits that no letter touches.
    for c in text.chars().chain([' ', 'a']) {
        if c.is_ascii_digit() || matches!(c, ' ' | '+' | '-' | '/' | '.' | '(' | ')') {
            run.push(c);
            continue;
        }
        let touched = before.is_alphanumeric() && !run.starts_with(' ') || c.is_alphanumeric() && !run.ends_with(' ');
        let number = run.trim().trim_end_matches(['.', '-', '/']).trim_start_matches(['.', '-', '/']).trim();
        if !touched && (is_phone(number) || is_card(number) || matches(TextFormat::Ipv4, number)) {
            return true;
        }
        run.clear();
        before = c;
    }
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.iter().enumerate().any(|(at, word)| {
        let bytes = word.as_bytes();
        let [c0, c1, k0, k1, ..] = bytes else { return false };
        if !(c0.is_ascii_alphabetic() && c1.is_ascii_alphabetic() && k0.is_ascii_digit() && k1.is_ascii_digit()) {
            return false;
        }
        let mut number = String::new();
        words[at..].iter().take(9).any(|word| {
            number.push_str(word);
            number.len() <= 34 && is_iban(&number)
        })
    })
}

/// A host name with a dot and a last label of letters: a bare word is a host name too, but tells nothing.
fn is_dotted_name(text: &str) -> bool {
    let Some((_, last)) = text.rsplit_once('.') else { return false };
    last.len() >= 2 && last.bytes().all(|byte| byte.is_ascii_alphabetic()) && matches(TextFormat::Hostname, text)
}

fn has_email(text: &str) -> bool {
    let separator = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '<' | '>' | '(' | ')' | '"' | ':');
    text.split(separator).any(|word| {
        let word = word.trim_end_matches(['.', '!', '?']);
        word.rsplit_once('@').is_some_and(|(_, host)| host.contains('.')) && matches(TextFormat::Email, word)
    })
}

/// A telephone number as people write one: 7 to 15 digits (E.164), and a plus, brackets or separators between them.
///
/// Digits alone are no telephone number: they could be anything.
pub fn is_phone(text: &str) -> bool {
    let text = text.trim();
    let (international, rest) = match text.strip_prefix('+') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mut digits, mut groups, mut open, mut in_group) = (0, 0, 0_i32, false);
    let mut dots = 0;
    for byte in rest.bytes() {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                groups += u32::from(!in_group);
                in_group = true;
            }
            b'(' => {
                open += 1;
                in_group = false;
            }
            b')' => {
                open -= 1;
                in_group = false;
            }
            b' ' | b'-' | b'/' => in_group = false,
            b'.' => {
                dots += 1;
                in_group = false;
            }
            _ => return false,
        }
        if !(0..=1).contains(&open) {
            return false;
        }
    }
    let separated = groups >= 2 && !rest.starts_with(['-', '.', '/']);
    // A decimal, a date or an address is written with separators too.
    let other = (dots > 0 && groups < 3)
        || rest.split(['-', '/', '.']).next().is_some_and(|first| first.len() == 4 && groups == 3 && digits == 8)
        || is_foreign_date(text)
        || matches(TextFormat::Ipv4, text)
        || datamesh_core::scalar::date(text.get(..10).unwrap_or("")).is_some();
    (7..=15).contains(&digits) && open == 0 && (international || (separated && !other))
}

/// A payment card number: 13 to 19 digits, in groups or not, that begin as an issuer's do and pass the Luhn check
/// (ISO/IEC 7812-1).
pub fn is_card(text: &str) -> bool {
    let mut digits: Vec<u8> = Vec::with_capacity(19);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => digits.push(byte - b'0'),
            b' ' | b'-' if !digits.is_empty() => {}
            _ => return false,
        }
    }
    (13..=19).contains(&digits.len()) && matches!(digits[0], 2..=6) && is_luhn(&digits)
}

/// The Luhn check over decimal digits.
fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let doubled = u32::from(*digit) * if at % 2 == 1 { 2 } else { 1 };
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// An International Bank Account Number (ISO 13616): country, two check digits, at most 30 letters and digits, and
/// the remainder modulo 97 is 1. Spaces between groups are allowed.
pub fn is_iban(text: &str) -> bool {
    let plain: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').map(|byte| byte.to_ascii_uppercase()).collect();
    let [c0, c1, k0, k1, rest @ ..] = plain.as_slice() else { return false };
    let shaped = c0.is_ascii_uppercase() && c1.is_ascii_uppercase() && k0.is_ascii_digit() && k1.is_ascii_digit();
    if !shaped || !(11..=30).contains(&rest.len()) || !rest.iter().all(u8::is_ascii_alphanumeric) {
        return false;
    }
    let remainder = rest.iter().chain([c0, c1, k0, k1]).fold(0_u32, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    remainder == 1
}

/// A date in another form than `YYYY-MM-DD`: `31.12.2013`, `12/31/2013`, `2013/12/31`.
pub fn is_foreign_date(text: &str) -> bool {
    let date = text.split([' ', 'T']).next().unwrap_or(text);
    for separator in ['/', '.', '-'] {
        let parts: Vec<&str> = date.split(separator).collect();
        let [a, b, c] = parts.as_slice() else { continue };
        let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok())?;
        let (Some(first), Some(second), Some(third)) = (number(a), number(b), number(c)) else { return false };
        let day_and_month = |x: u32, y: u32| (1..=31).contains(&x) && (1..=31).contains(&y) && x.min(y) <= 12;
        let short = |part: &str| (1..=2).contains(&part.len());
        if a.len() == 4 && short(b) && short(c) {
            return (1000..3000).contains(&first)
                && day_and_month(second, third)
                && datamesh_core::scalar::date(date).is_none();
        }
        return c.len() == 4 && short(a) && short(b) && (1000..3000).contains(&third) && day_and_month(first, second);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(test(text), "{text}");
        }
        for text in bad {
            assert!(!test(text), "{text}");
        }
    }

    #[test]
    fn cards_pass_the_luhn_check() {
        let good = ["4111111111111111", "5500 0000 0000 0004", "3400-0000-0000-009", "6011000000000004"];
        let bad =
            ["4111111111111112", "411111111111", "0000000000000000", "4111 1111 1111 111x", "-4111111111111111", ""];
        check(is_card, &good, &bad);
    }

    #[test]
    fn ibans_pass_the_mod_97_check() {
        let good =
            ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "fr1420041010050500013m02606", "NO9386011117947"];
        let bad = [
            "DE89370400440532013001",
            "GB82WEST12345698765433",
            "DE89",
            "8937040044053201300000",
            "DE8937040044053201300é",
        ];
        check(is_iban, &good, &bad);
    }

    #[test]
    fn phones_are_told_from_other_numbers() {
        let good = [
            "+49 30 901820",
            "+14155552671",
            "(415) 555-2671",
            "415-555-2671",
            "030 / 901820",
            "020 7946 0958",
            "415.555.2671",
        ];
        let bad = [
            "4155552671",
            "2013-01-01",
            "2013/01/01",
            "31.12.2013",
            "12/31/2013",
            "3.14159265",
            "-1234567",
            "192.168.100.200",
            "+123456",
            "+1234567890123456",
            "(415 555-2671",
            "N12345678",
            "2013-01-01 06:00",
        ];
        check(is_phone, &good, &bad);
    }

    #[test]
    fn dates_of_other_countries() {
        let good = ["31.12.2013", "12/31/2013", "1/2/2013", "2013/12/31", "31-12-2013 10:00"];
        let bad = ["2013-12-31", "1.2.3", "32.12.2013", "13/13/2013", "1.2013", "a/b/2013", "//2013"];
        check(is_foreign_date, &good, &bad);
    }

    fn of(text: &str) -> Vec<Sign> {
        let mut all = Vec::new();
        signs(text, |sign| all.push(sign));
        all
    }

    #[test]
    fn a_text_bears_its_signs() {
        for (text, expected) in [
            ("ada@example.com", vec![Sign::Email]),
            ("ada@localhost", vec![]),
            ("please write to ada@example.com.", vec![Sign::ContainsEmail]),
            ("10.0.0.1", vec![Sign::Ipv4]),
            ("2001:db8::1", vec![Sign::Ipv6]),
            ("https://example.com/a", vec![Sign::Uri]),
            ("12:30", vec![]),
            ("note: this", vec![]),
            ("www.example.com", vec![Sign::Hostname]),
            ("word", vec![]),
            ("1.5", vec![]),
            ("DE89370400440532013000", vec![Sign::Iban]),
            ("4111111111111111", vec![Sign::Card]),
            ("2013-01-01", vec![]),
            ("", vec![]),
            ("call +49 30 901820 before noon", vec![Sign::ContainsNumber]),
            ("card: 4111 1111 1111 1111.", vec![Sign::ContainsNumber]),
            ("to DE89 3704 0044 0532 0130 00, please", vec![Sign::ContainsNumber]),
            ("from 10.0.0.1 again", vec![Sign::ContainsNumber]),
            ("seen at 2013-01-01 06:00 and 2013-01-02T07:00", vec![]),
            ("order 550e8400-e29b-41d4-a716-446655440000 is late", vec![]),
            ("52.520008, 13.404954 is Berlin", vec![]),
            ("12345678 pieces", vec![]),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
