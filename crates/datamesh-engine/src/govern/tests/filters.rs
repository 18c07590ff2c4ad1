//! The language of row filters.

use std::collections::{BTreeMap, BTreeSet};

use datamesh_app::ports::Engine;
use datamesh_core::Table;
use datamesh_core::access::{AttributeType, AttributeValue};

use super::{Mesh, access, filter, people, text};

#[test]
fn what_cannot_be_a_row_filter_is_refused_with_its_place() {
    let mesh = Mesh::new();
    let table: Table = serde_json::from_value(people().0).expect("a table");
    let attributes = BTreeMap::from([
        ("country".to_owned(), AttributeType::String),
        ("level".to_owned(), AttributeType::Long),
        ("regions".to_owned(), AttributeType::Strings),
        ("senior".to_owned(), AttributeType::Boolean),
    ]);
    for condition in [
        "country = principal.country",
        "principal.senior OR country = PRINCIPAL.Country",
        "country IN principal.regions",
        "country NOT IN principal.regions AND id > principal.level",
        "country IN (principal.regions)",
        "array_has(principal.regions, country)",
        "address['city'] = principal.country AND div BETWEEN 1 AND principal.level",
    ] {
        assert_eq!(mesh.engine.check_row_filter(&table, &attributes, condition), Ok(()), "{condition}");
    }
    for (condition, why, place) in [
        ("contry = 'DE'", "No field named contry", Some((1, 1))),
        ("country = 'DE'\n  AND regon = 1", "regon", Some((2, 7))),
        ("country = principal.contry", "no attribute `contry`", Some((1, 11))),
        ("country", "not a boolean", None),
        ("country > principal.regions", "", None),
        ("country IN principal.country", "not a set", Some((1, 12))),
        ("country = 'DE' country", "does not belong there", Some((1, 16))),
        ("country = 'DE'; DROP TABLE x", "does not belong there", Some((1, 15))),
        ("count(*) > 1", "one row", None),
        ("id IN (SELECT 1)", "", None),
        ("random() > 0.5", "one row", None),
        ("country = principal.", "no attribute", Some((1, 11))),
        ("nothing(country)", "nothing", None),
        ("country = ", "", None),
        ("region = 'x'", "region", Some((1, 1))),
    ] {
        let problem = mesh.engine.check_row_filter(&table, &attributes, condition).expect_err(condition);
        assert!(problem.message.contains(why), "{condition}: {problem:?}");
        assert!(place.is_none() || problem.place == place, "{condition}: {problem:?}");
    }
}

#[tokio::test]
async fn attributes_are_values_and_never_sql() {
    let mut mesh = Mesh::new();
    let (table, rows) = people();
    mesh.publish(table, &rows).await;
    let set =
        |texts: &[&str]| AttributeValue::Strings(texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>());
    for (condition, attributes, count) in [
        ("country = principal.country", vec![("country", text("FR"))], 4),
        ("country = principal.country", vec![("country", text("' OR true OR country = '"))], 0),
        ("country = principal.country", vec![("country", text("principal.country"))], 0),
        ("country = principal.country", vec![], 0),
        ("country = principal.country OR true", vec![], 0),
        ("country IN principal.regions", vec![("regions", set(&["DE", "IT"]))], 3),
        ("country IN principal.regions", vec![("regions", set(&[]))], 0),
        ("country NOT IN principal.regions", vec![("regions", set(&["DE"]))], 4),
        ("array_has(principal.regions, country)", vec![("regions", set(&["FR"]))], 4),
        ("array_has(principal.regions, country)", vec![("regions", set(&[]))], 0),
        (
            "principal.all OR id = principal.one",
            vec![("all", AttributeValue::Boolean(false)), ("one", AttributeValue::Long(2))],
            1,
        ),
        (
            "principal.all OR id = principal.one",
            vec![("all", AttributeValue::Boolean(true)), ("one", AttributeValue::Long(2))],
            7,
        ),
        ("CAST(NULL AS BOOLEAN)", vec![], 0),
        ("lower(country) = 'de' AND div > 1", vec![], 2),
    ] {
        let decided = mesh.visible("people", access(Some(filter(condition, &attributes)), &[], &[]));
        let seen = mesh.ask("SELECT count(*) AS n, count(id) AS m FROM hr.staff.people", &decided).await;
        let seen = seen.expect(condition);
        assert!(seen.contains(&format!("| {count} | {count} |")), "{condition} {attributes:?}: {seen}");
    }
}
