use super::*;

fn contract(columns: Vec<Column>) -> DataProduct {
    let columns = serde_json::to_value(columns).expect("JSON");
    serde_json::from_value(serde_json::json!({
        "format": 1,
        "id": {"domain": "sales", "product": "orders"},
        "version": "1.0.0",
        "owner": "sales-team",
        "status": "active",
        "tables": [{"name": "orders", "columns": columns}],
    }))
    .expect("a contract")
}

fn column(name: &str, data_type: DataType, pii: bool, mask: Option<&str>) -> Column {
    Column { pii, mask: mask.map(str::to_owned), ..Column::anonymous(name, data_type) }
}

/// `path=mask`, in order.
fn check(columns: Vec<Column>, inherited: &[(&str, Inherited)], expected: &[&str]) {
    let contract = contract(columns);
    let inherited = inherited.iter().map(|(name, from)| ((*name).to_owned(), from.clone())).collect();
    let found = protections(&contract, &contract.tables[0], &inherited);
    let found: Vec<String> = found.iter().map(|found| format!("{}={}", found.path.join("."), found.mask)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_is_personal_or_masked_is_protected() {
    check(
        vec![
            column("id", DataType::Long, false, None),
            column("email", DataType::String, true, Some("hash")),
            column("born", DataType::Date, true, None),
            column("salary", DataType::Int, false, Some("bucket(1000)")),
            column("shown", DataType::String, true, Some("none")),
            column("plain", DataType::String, false, Some("none")),
        ],
        &[],
        &["email=hash", "born=null", "salary=bucket(1000)", "shown=none"],
    );
}

#[test]
fn a_mask_that_does_not_fit_hides_the_value() {
    check(
        vec![column("a", DataType::Boolean, true, Some("hash")), column("b", DataType::String, false, Some("sha256"))],
        &[],
        &["a=null", "b=null"],
    );
}

#[test]
fn fields_have_paths_of_their_own_but_not_within_lists() {
    let city = column("city", DataType::String, true, Some("redact"));
    let street = column("street", DataType::String, false, None);
    let address = DataType::Struct(vec![street, city]);
    let item = column("item", address.clone(), false, None);
    check(
        vec![
            column("address", address.clone(), false, None),
            column("all", DataType::Array(Box::new(item.clone())), false, None),
            column("home", address, true, None),
            column(
                "deep",
                DataType::Struct(vec![
                    column("first", DataType::String, true, None),
                    column("by", DataType::Map(Box::new(DataType::String), Box::new(item)), false, None),
                ]),
                false,
                None,
            ),
        ],
        &[],
        &["address.city=redact", "all=null", "home=null", "deep=null"],
    );
}

#[test]
fn what_is_inherited_protects_unless_the_contract_masks_it_itself() {
    let hashed =
        || Inherited { mask: Some(Mask::Hash), pii: true, from: vec!["d.p_v1.t.c".into()], ..Inherited::default() };
    check(
        vec![
            column("a", DataType::String, false, None),
            column("b", DataType::Boolean, false, None),
            column("c", DataType::String, false, Some("redact")),
            column("d", DataType::String, false, Some("none")),
            column("e", DataType::String, false, None),
        ],
        &[
            ("a", hashed()),
            ("b", hashed()),
            ("c", hashed()),
            ("d", hashed()),
            ("e", Inherited { mask: Some(Mask::None), from: vec!["d.p_v1.t.c".into()], ..Inherited::default() }),
        ],
        &["a=hash", "b=null", "c=redact", "d=hash", "e=null"],
    );
    let restricted = Inherited { classification: Some(Classification::Restricted), ..Inherited::default() };
    let contract = contract(vec![
        column("plain", DataType::Long, false, None),
        column("email", DataType::String, true, Some("hash")),
    ]);
    let inherited = ["plain", "email"].map(|name| (name.to_owned(), restricted.clone())).into_iter().collect();
    let found = protections(&contract, &contract.tables[0], &inherited);
    let found: Vec<_> = found.iter().map(|found| (found.path[0].as_str(), &found.mask, found.classification)).collect();
    let expected =
        [("plain", &Mask::None, Classification::Restricted), ("email", &Mask::Hash, Classification::Restricted)];
    assert_eq!(found, expected);
}

#[test]
fn the_stricter_classification_counts() {
    let mut inner = column("city", DataType::String, false, None);
    inner.declared.insert("classification".into(), "restricted".into());
    let outer = column("address", DataType::Struct(vec![inner]), false, None);
    assert_eq!(strictest(&outer, Classification::Public), Classification::Restricted);
}

#[test]
fn a_renamed_column_inherits_by_its_former_names() {
    let inherited = |mask: Option<&str>, from: &str| Inherited {
        mask: mask.map(|mask| Mask::parse(mask).expect("a mask")),
        pii: true,
        classification: None,
        from: vec![from.to_owned()],
    };
    let renamed = |name: &str, former: &str| Column {
        renamed_from: Some(former.to_owned()),
        ..column(name, DataType::String, false, None)
    };
    let email = || ("email", inherited(Some("hash"), "crm.people_v1.people.email"));
    check(vec![renamed("mail", "email")], &[email()], &["mail=hash"]);
    // Twice before it was published again: its own past is not told, so that it is any of those that are gone.
    check(vec![renamed("contact", "mail"), column("id", DataType::Long, false, None)], &[email()], &["contact=hash"]);
    let phone = || ("phone", inherited(Some("redact"), "crm.people_v1.people.phone"));
    check(
        vec![renamed("contact", "mail"), renamed("number", "phone")],
        &[email(), phone()],
        &["contact=hash", "number=redact"],
    );
    check(vec![renamed("contact", "mail")], &[email(), phone()], &["contact=null"]);
    // What is new was made of nothing yet.
    check(vec![column("contact", DataType::String, false, None)], &[email()], &[]);
}
