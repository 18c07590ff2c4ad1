//! Numbers as text: which plain scalars are one, and one spelling for each value.

/// Whether a plain scalar is a number by YAML 1.2's core schema.
pub(super) fn is_number(text: &str) -> bool {
    decimal(text).is_some() || radix(text).is_some() || is_special(text)
}

/// `.inf` and `.nan`, in their spellings.
pub(super) fn is_special(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// One spelling for each value: `1`, `1.0`, `+1` and `10e-1` are the same.
pub(super) fn canonical(text: &str) -> String {
    if let Some(value) = radix(text) {
        return canonical(&value);
    }
    let Some(Decimal { negative, digits, exponent }) = decimal(text) else { return text.to_ascii_lowercase() };
    if digits.is_empty() {
        return "0".to_owned();
    }
    let sign = if negative { "-" } else { "" };
    match exponent {
        0 => format!("{sign}{digits}"),
        _ => format!("{sign}{digits}e{exponent}"),
    }
}

/// The number as JSON spells it; `None` for what JSON cannot say.
pub(super) fn json(text: &str) -> Option<String> {
    if let Some(value) = radix(text) {
        return Some(value);
    }
    decimal(text)?;
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => unsigned.split_at(at),
        None => (unsigned, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction = if mantissa.contains('.') {
        format!(".{}", if fraction.is_empty() { "0" } else { fraction })
    } else {
        String::new()
    };
    Some(format!("{sign}{whole}{fraction}{exponent}"))
}

/// `digits` × 10^`exponent`, without outer zeros; no digits are zero.
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

fn decimal(text: &str) -> Option<Decimal> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // An exponent beyond all measure is no number that anybody could hold.
            (mantissa, exponent.parse::<i32>().ok()?)
        }
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let leading = all.trim_start_matches('0');
    let digits = leading.trim_end_matches('0');
    let exponent = i64::from(exponent) - fraction.len() as i64 + (leading.len() - digits.len()) as i64;
    Some(Decimal { negative, digits: digits.to_owned(), exponent })
}

/// `0x1F` and `0o17`, as decimals.
fn radix(text: &str) -> Option<String> {
    let value = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u128::from_str_radix(digits, 16),
        (_, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => u128::from_str_radix(digits, 8),
        _ => return None,
    };
    value.ok().map(|value| value.to_string())
}
