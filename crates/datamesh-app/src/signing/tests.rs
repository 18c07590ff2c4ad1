use super::*;

#[test]
fn what_is_signed_is_verified_and_nothing_else_is() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("keys/signing.key");
    let key = SigningKey::open_or_make(&path).expect("it is made");
    let again = SigningKey::open_or_make(&path).expect("it is read");
    assert_eq!(key.public(), again.public());
    let other = SigningKey::open_or_make(&folder.path().join("other.key")).expect("it is made");
    assert_ne!(key.public(), other.public());
    let signature = key.sign(b"message");
    let public = PublicKey::parse(&format!(" {}\n", key.public_key())).expect("it is a key");
    assert_eq!((&public, public.id(), public.id().len()), (key.public(), key.key_id(), 32));
    assert!(public.verify(key.key_id(), b"message", &signature));
    assert!(!public.verify(key.key_id(), b"messages", &signature));
    assert!(!public.verify(other.key_id(), b"message", &signature));
    assert!(!other.public().verify(other.key_id(), b"message", &signature));
    for at in 0..signature.len() {
        let mut forged = signature.clone();
        forged[at] ^= 1;
        assert!(!public.verify(key.key_id(), b"message", &forged), "byte {at}");
    }
    assert!(!public.verify(key.key_id(), b"message", &[]));
    let ring = KeyRing::parse(&format!("# ours\n{}\n\n{}\n", other.public(), key.public())).expect("both are keys");
    assert!(ring.verify(key.key_id(), b"message", &signature) && ring.knows(other.key_id()) && !ring.knows("x"));
    assert!(!format!("{key:?}").contains(&canonical::hex(&fs::read(&path).expect("it is there"))[32..64]));
}

#[test]
fn the_first_test_vector_of_rfc_8032() {
    let bytes = canonical::unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").expect("digits");
    let signature = canonical::unhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    )
    .expect("digits");
    let key = PublicKey::from_bytes(&bytes).expect("32 bytes");
    assert!(key.verify(key.id(), b"", &signature));
}

#[test]
fn what_is_no_key_is_refused() {
    for text in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", &format!("ed25519:{}", STANDARD.encode([0; 33]))] {
        assert_eq!(PublicKey::parse(text).expect_err("it is no key").code(), ErrorCode::InvalidArgument, "{text}");
    }
    assert!(KeyRing::parse("# none\n").is_err());
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("signing.key");
    write_private(&path, b"no key").expect("it is written");
    let error = SigningKey::open_or_make(&path).expect_err("it is no key");
    assert!(error.to_string().contains("is no Ed25519 key"), "{error}");
    assert_eq!(fs::read(&path).expect("it is there"), b"no key", "it was not overwritten");
}

#[cfg(unix)]
#[test]
fn a_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("signing.key");
    SigningKey::open_or_make(&path).expect("it is made");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let error = SigningKey::open_or_make(&path).expect_err("others may read it");
    assert!(error.help().is_some_and(|help| help.contains("chmod 600")), "{error}");
}

#[test]
fn those_who_make_it_at_once_have_one_key() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("keys/signing.key");
    let ids: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let making: Vec<_> = (0..16).map(|_| scope.spawn(|| SigningKey::open_or_make(&path))).collect();
        let keys = making.into_iter().map(|making| making.join().expect("it ends").expect("it is made"));
        keys.map(|key| key.key_id().to_owned()).collect()
    });
    assert_eq!(ids.len(), 1);
    let left = fs::read_dir(folder.path().join("keys")).expect("it is there").count();
    assert_eq!(left, 1, "nothing else is left behind");
}
