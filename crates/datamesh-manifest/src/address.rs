//! Addresses of sources: a manifest is kept in the registry and shown to everybody, so it must not hold a secret.

/// Words in the name of a query's parameter that tell a secret.
const SECRETS: [&str; 6] = ["sig", "token", "secret", "password", "credential", "key"];

/// The parameter of a web address's query that signs the request, or is a secret by its name. One that a reference gives
/// is none.
pub(crate) fn signature(address: &str) -> Option<&str> {
    let (scheme, rest) = address.trim().split_once("://")?;
    let (_, query) = rest.split_once('?').filter(|_| scheme.to_ascii_lowercase().starts_with("http"))?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut names = pairs.filter(|(_, value)| !value.starts_with("${")).map(|(name, _)| name);
    names.find(|name| SECRETS.iter().any(|word| name.to_ascii_lowercase().contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_found_and_nothing_else() {
        for address in [
            "https://host/a.csv?X-Amz-Signature=1&b=2",
            "https://host/a.csv?sv=1&sig=x",
            "http://host/a.csv?access_token=x",
        ] {
            assert!(signature(address).is_some(), "{address}");
        }
        for address in [
            "data/me@host.csv",
            "s3://bucket/me@host.csv",
            "https://host/a.csv?format=csv",
            "https://host/me@home.csv?year=2024",
            "https://host/a.csv?token=${env:TOKEN}",
        ] {
            assert_eq!(signature(address), None, "{address}");
        }
    }
}
