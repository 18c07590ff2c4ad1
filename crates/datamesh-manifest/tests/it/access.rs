//! What products offer to roles, and what protects their columns.

use datamesh_core::access::offers;
use datamesh_core::{DataProduct, Diagnostic};

use crate::{read_manifest, told};

const TABLES: &str = "  schema:
    - name: daily-orders
      columns:
        - {name: id, type: int}
        - {name: email, type: string, pii: true, mask: hash}
        - {name: country, type: string}
        - {name: address, type: struct, columns: [{name: city, type: string, pii: true}, {name: zip, type: string}]}
    - name: lines
      columns:
        - {name: id, type: int}
        - {name: price, type: 'decimal(9,2)', mask: bucket(10)}
";

fn manifest(access: &str) -> String {
    format!("dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  access:\n    - {access}\n{TABLES}")
}

fn read(text: &str) -> (Option<DataProduct>, Vec<Diagnostic>) {
    let (product, diagnostics) = read_manifest(text.as_bytes());
    assert_eq!(product.is_none(), diagnostics.iter().any(Diagnostic::is_error), "{text}");
    (product, diagnostics)
}

/// Checks what is told of an entry of `access:`, which is line 6.
fn check(access: &str, expected: &[&str]) {
    let text = manifest(access);
    assert_eq!(told(&text, &read(&text).1), expected, "{access}");
}

/// Checks what is told of a table's only column, which is line 8.
fn check_column(column: &str, expected: &[&str]) {
    let text = format!(
        "dataProduct:\n  name: orders\n  version: 1.0.0\n  owner: sales\n  schema:\n    - name: t\n      columns:\n        - {{name: a, {column}}}\n"
    );
    assert_eq!(told(&text, &read(&text).1), expected, "{column}");
}

#[test]
fn a_whole_offer_is_read() {
    let text = manifest(
        "{role: analyst, tables: [Daily_Orders], rows: \"country = principal.country\", columns: [id, email, daily-orders.country], unmasked: [daily_orders.email], approvers: [stewards, 'user:ada'], approvals: 2, expires: 90d, purpose: research}\n    - {role: analyst, tables: [lines], unmasked: [price], purpose: [2026, audits]}\n    - {role: support, unmasked: [email, address.city]}",
    );
    let (product, diagnostics) = read(&text);
    assert_eq!(told(&text, &diagnostics), [""; 0]);
    assert!(!diagnostics.iter().any(|found| found.id == "not-enforced"), "access is enforced: {diagnostics:?}");
    let found = offers(&product.unwrap()).unwrap();
    assert_eq!((found.len(), found[0].approvals, found[1].approvals), (3, 2, 1));
    assert_eq!(found[0].columns.as_ref().map(std::collections::BTreeSet::len), Some(3));
    assert_eq!(found[0].approvers, ["stewards", "user:ada"]);
    assert_eq!(found[1].purposes.iter().map(String::as_str).collect::<Vec<_>>(), ["2026", "audits"]);
}

#[test]
fn offers_name_what_there_is() {
    check("{role: a, tables: [line]}", &["6 unknown-table [line] the product has no table `line`"]);
    check("{role: a, tables: [lines, Lines]}", &["6 duplicate-name [Lines] `Lines` is named twice"]);
    check("{role: a, tables: []}", &["6 empty-list [[]] `tables` names none"]);
    check("{role: a, columns: []}", &["6 empty-list [[]] `columns` names none"]);
    check("{role: a, purpose: []}", &["6 empty-list [[]] `purpose` names none"]);
    check(
        "{role: a, tables: [lines], columns: [email]}",
        &["6 unknown-column [email] no table that the role is offered has a column `email`"],
    );
    check(
        "{role: a, columns: [address.city]}",
        &["6 not-a-column [address.city] `address.city` is a field: a role sees a column or does not"],
    );
    check("{role: a, columns: [id, lines.id]}", &["6 duplicate-name [lines.id] `lines.id` is named twice"]);
    check(
        "{role: a, unmasked: [emial]}",
        &["6 unknown-column [emial] no table that the role is offered has a column `emial`"],
    );
    check(
        "{role: a, columns: [id], unmasked: [email]}",
        &["6 unmasked-hidden [email] `email` is unmasked, but `columns` does not let the role see it"],
    );
    check(
        "{role: a, unmasked: [country, address, address.city, address.zip]}",
        &[
            "6 not-protected [country] `country` is not protected, so everybody who sees it sees it in clear",
            "6 not-protected [address.zip] `address.zip` is not protected, so everybody who sees it sees it in clear",
        ],
    );
    check(
        "{role: a, unmasked: [email, daily-orders.email]}",
        &["6 duplicate-name [daily-orders.email] `daily-orders.email` is named twice"],
    );
}

#[test]
fn what_a_query_makes_may_be_protected_by_what_it_reads() {
    let text = manifest("{role: a, unmasked: [country]}").replace(
        "    - name: daily-orders\n",
        "    - name: daily-orders\n      transform: SELECT * FROM web.shop.orders\n",
    );
    let text = text.replace("  access:", "  inputs: [web/shop]\n  access:");
    let (_, diagnostics) = read(&text);
    assert!(!diagnostics.iter().any(|found| found.id == "not-protected"), "{diagnostics:?}");
}

#[test]
fn a_role_is_offered_each_table_once() {
    check("{role: a, tables: [lines]}\n    - {role: a, tables: [daily-orders]}\n    - {role: b}", &[]);
    check(
        "{role: a, tables: [lines]}\n    - {role: a}",
        &["7 duplicate-access [a] role `a` is offered table `lines` already"],
    );
    check("{role: Data Analyst, approvers: [Reporting Manager]}", &[]);
    check("{role: ''}", &["6 empty-text [''] `role` is empty"]);
}

#[test]
fn rows_are_chosen_by_columns_of_each_table() {
    check("{role: a, tables: [daily-orders], rows: \"lower(contry) = 'de' OR Country = 'DE'\"}", &[]);
    check(
        "{role: a, rows: \"id > 3 AND daily_orders.id is not null\"}",
        &[
            "6 unknown-column [\"id > 3 AND daily_orders.id is not null\"] table `lines` has no column `daily_orders.id`, which `rows` compares",
        ],
    );
    check(
        "{role: a, tables: [daily-orders], rows: \"contry = principal.country\"}",
        &[
            "6 unknown-column [\"contry = principal.country\"] table `daily-orders` has no column `contry`, which `rows` compares",
        ],
    );
    check("{role: a, rows: ' '}", &["6 empty-text [' '] `rows` is empty"]);
}

#[test]
fn terms_can_be_kept() {
    check(
        "{role: a, expires: soon}",
        &["6 invalid-period [soon] `soon` is no length of time; write for example `90d`, `3y`, `12h` or `P3Y`"],
    );
    check("{role: a, expires: 0d}", &["6 invalid-period [0d] `0d` is no time at all"]);
    check("{role: a, approvals: 3}", &["6 invalid-approvals [3] `approvals` is 1 or 2"]);
    check("{role: a, approvals: '2', approvers: [x]}", &["6 invalid-approvals ['2'] `approvals` is 1 or 2"]);
    check(
        "{role: a, approvals: 2}",
        &["6 approvers-missing [2] two people must approve, but nobody is named below `approvers`"],
    );
    check(
        "{role: a, approvals: 2, approvers: ['user:ada']}",
        &["6 approvers-missing [2] two different people must approve, but only one is named"],
    );
    check("{role: a, approvals: 2, approvers: ['user:ada', 'user:bob']}", &[]);
    check("{role: a, approvals: 2, approvers: [stewards]}", &[]);
    check(
        "{role: a, approvers: ['service:x', x, x]}",
        &["6 invalid-approver ['service:x'] `service:x` cannot approve", "6 duplicate-name [x] `x` is named twice"],
    );
}

#[test]
fn a_mask_fits_its_column() {
    for column in [
        "type: string, mask: 'partial(1, 4)'",
        "type: date, mask: month",
        "type: boolean, mask: null",
        "type: long, mask: hash",
        "type: string, pii: true, mask: none",
        "type: array<string>, items: {mask: redact}",
        "type: struct, columns: [{name: b, type: double, mask: bucket(0.5)}]",
    ] {
        check_column(column, &[]);
    }
    check_column(
        "type: date, mask: redact",
        &["8 mask-type [redact] `mask: redact` does not fit a column of type date, which would not keep its type"],
    );
    check_column(
        "type: struct, mask: hash, columns: [{name: b, type: array<int>, items: {mask: day}}]",
        &[
            "8 mask-type [hash] `mask: hash` does not fit a column of type struct<b: array<int>>, which would not keep its type",
            "8 mask-type [day] `mask: day` does not fit a column of type int, which would not keep its type",
        ],
    );
    let help = |column: &str| {
        let text = format!(
            "dataProduct:\n  name: o\n  version: 1.0.0\n  owner: s\n  schema: [{{name: t, columns: [{{name: a, {column}}}]}}]\n"
        );
        let diagnostics = read(&text).1;
        let found = diagnostics.iter().find(|found| found.is_error()).unwrap_or_else(|| panic!("{column}"));
        (found.id, found.help.clone().unwrap())
    };
    assert_eq!(
        help("type: date, mask: hour"),
        ("mask-type", "what fits: null, year, quarter, month, day, none".into())
    );
    assert_eq!(help("type: string, mask: hsah"), ("invalid-mask", "did you mean `hash`?".into()));
    assert_eq!(help("type: boolean, mask: "), ("invalid-mask", "what fits: null, none".into()));
    assert_eq!(
        help("type: array<int>, mask: hash"),
        ("mask-type", "what fits: null, none; or mask its items, below `items:`".into())
    );
}

#[test]
fn a_mask_of_null_is_kept_as_its_word() {
    let text = "dataProduct:\n  name: o\n  version: 1.0.0\n  owner: s\n  schema: [{name: t, columns: [{name: a, type: int, mask: null}, {name: b, type: int, mask: ~}, {name: c, type: int, mask: 'null'}]}]\n";
    let product = read(text).0.unwrap();
    assert!(
        product.tables[0].columns.iter().all(|column| column.mask.as_deref() == Some("null") && column.is_protected())
    );
}

#[test]
fn protection_is_explained() {
    check_column("type: int, classification: Confidential", &[]);
    check_column(
        "type: int, classification: confidental",
        &["8 unknown-classification [confidental] `confidental` is no known classification"],
    );
    check_column("type: int, declassify: counts only", &[]);
    for reason in ["''", "true", "2026", "'-'"] {
        let expected = format!("8 reason-missing [{reason}] `declassify` gives no reason");
        check_column(&format!("type: int, declassify: {reason}"), &[&expected]);
    }
    let text = manifest("{role: a}").replace("type: int}", "type: int, declassify: ' counts only '}");
    let product = read(&text).0.unwrap();
    assert_eq!(product.tables[0].columns[0].declassify(), Some("counts only"));
    assert_eq!(product.tables[0].columns[1].declassify(), None);
    let text = manifest("{role: a}").replace("  access:", "  classification: secret\n  access:");
    assert_eq!(told(&text, &read(&text).1), ["5 unknown-classification [secret] `secret` is no known classification"]);
}
