use super::*;

fn refusal(text: &str) -> String {
    let error = Location::parse(text, Path::new("/mesh")).expect_err(text);
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{text}");
    let told = format!("{error} {}", error.help().unwrap_or_default());
    assert!(!told.contains("s3cret"), "{told}");
    error.to_string()
}

#[test]
fn paths_are_relative_to_the_folder() {
    for (text, expected) in [("r.db", "/mesh/r.db"), ("/x/r.db", "/x/r.db"), ("../a:b.db", "/mesh/../a:b.db")] {
        match Location::parse(text, Path::new("/mesh")) {
            Ok(Location::Sqlite(path)) => assert_eq!(path, Path::new(expected)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn urls_are_read_and_show_no_password() {
    for (text, place, schema) in [
        ("postgres://anna:s3cret@db.example:6432/mesh", "db.example:6432/mesh", None),
        ("postgresql://anna:s3cret@db/mesh?schema=shop&sslmode=require", "db:5432/mesh, schema `shop`", Some("shop")),
        ("postgres://anna@%2Frun%2Fpg/mesh?schema=a%20b", "/run/pg/mesh, schema `a b`", Some("a b")),
        ("postgres://db/?dbname=mesh&password=s3cret", "db:5432/mesh", None),
    ] {
        let url = PostgresUrl::parse(text).expect(text);
        assert_eq!((url.place().as_str(), url.schema.as_deref()), (place, schema));
        assert!(!format!("{url:?}").contains("s3cret"));
    }
}

#[test]
fn what_is_no_location_is_refused_without_showing_it() {
    for (text, expected) in [
        ("", "the registry's path is empty"),
        ("mysql://anna:s3cret@db/mesh", "the registry's URL is not one of PostgreSQL"),
        ("postgres://anna:s3cret@db:port/mesh", "the registry's URL cannot be read"),
        ("postgres://anna:s3cret@db", "the registry's URL names no database"),
        ("postgres://anna:s3cret@db/mesh?sslmod=require", "the registry's URL has the parameter `sslmod`"),
        ("postgres://anna:s3cret@db/mesh?sslmode=s3cret", "the registry's URL cannot be read"),
        ("postgres://anna:s3cret@db/mesh?options=-c%20x", "the registry's URL has the parameter `options`"),
        ("postgres://db/mesh?schema=a&schema=b", "the registry's URL names two schemas"),
        ("postgres://db/mesh?schema=pg_catalog", "the registry's URL names a schema that is PostgreSQL's own"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    assert!(
        refusal("postgres://db/mesh?schema=").starts_with("the registry's URL names a schema that PostgreSQL cannot")
    );
    assert!(refusal(&format!("postgres://db/mesh?schema={}", "x".repeat(64))).contains("1 to 63 bytes"));
}
