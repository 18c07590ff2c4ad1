//! The well-known text formats.

use std::net::{Ipv4Addr, Ipv6Addr};

use datamesh_core::contract::TextFormat;
use datamesh_core::dates;
use datamesh_core::scalar::is_uuid;

/// Whether `text` has `format`.
pub fn matches(format: TextFormat, text: &str) -> bool {
    match format {
        TextFormat::Email => email(text),
        TextFormat::Uuid => is_uuid(text),
        TextFormat::Uri => uri(text),
        TextFormat::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
        TextFormat::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
        TextFormat::Hostname => hostname(text),
        TextFormat::Date => dates::full_date(text),
        TextFormat::DateTime => dates::date_time(text),
        TextFormat::Time => dates::time(text),
    }
}

/// The HTML standard's "valid e-mail address", with a length limit (RFC 5321, 4.5.3.1).
fn email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let local_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
    !local.is_empty() && local.len() <= 64 && local.bytes().all(local_byte) && hostname(domain)
}

/// RFC 1123: labels of 1 to 63 letters, digits and inner hyphens, 253 characters at most.
fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}

/// RFC 3986 `URI`: a scheme, a colon, and only characters that a URI may have, with whole percent escapes.
fn uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        None => (None, rest),
    };
    let body_ok = |text: &str, extra: &[u8]| {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte == b'%' {
                let escape = bytes.get(at + 1..at + 3);
                if !escape.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)) {
                    return false;
                }
                at += 3;
                continue;
            }
            if !(byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) || extra.contains(&byte)) {
                return false;
            }
            at += 1;
        }
        true
    };
    let one_fragment = path.bytes().filter(|byte| *byte == b'#').count() <= 1;
    scheme_ok
        && (authority.is_some() || !rest.is_empty())
        && authority.is_none_or(|authority| body_ok(authority, b"[]"))
        && one_fragment
        && body_ok(path, b"/?#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let cases: &[(TextFormat, &[&str], &[&str])] = &[
            (
                TextFormat::Email,
                &["a@example.com", "a.b+c@x-y.example", "a@localhost"],
                &["", "a", "@x", "a@", "a@b@c", "a b@c.d", "a@-x.com", "a@x..com", "é@x.com"],
            ),
            (
                TextFormat::Uuid,
                &["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"],
                &["", "123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400g"],
            ),
            (
                TextFormat::Uri,
                &["https://example.com/a?b=c#d", "urn:isbn:1", "mailto:a@b.c", "http://[::1]:80/", "a:b%20c"],
                &["", "example.com", "://x", "http://a b", "http://a/%zz", "1a:b", "http://a/#b#c", "x:"],
            ),
            (TextFormat::Ipv4, &["127.0.0.1"], &["", "127.1", "256.0.0.1", "1.2.3.4.5", "01.2.3.4"]),
            (TextFormat::Ipv6, &["::1", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4"], &["", ":::", "1.2.3.4", "g::"]),
            (
                TextFormat::Hostname,
                &["a", "example.com", "xn--bcher-kva.example"],
                &["", "-a", "a-", "a..b", "a_b", "a b"],
            ),
        ];
        for (format, good, bad) in cases {
            for text in *good {
                assert!(matches(*format, text), "{format:?} {text}");
            }
            for text in *bad {
                assert!(!matches(*format, text), "{format:?} {text}");
            }
        }
        assert!(!hostname(&"a".repeat(64)));
    }
}
