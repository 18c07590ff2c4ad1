use datamesh_core::access::{AttributeValue, Governance};
use datamesh_policy::Policies;

use crate::mesh::{compile, domains, governance, policy, with_policies};

fn check(governance: &Governance, expected: &[&str]) {
    let found = match Policies::compile(governance, &domains()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|problem| {
                let place = if problem.path.is_empty() {
                    format!("{}:{}:{}", problem.location.file, problem.location.line, problem.location.column)
                } else {
                    problem.path.join(".")
                };
                format!("{} {place}: {}", problem.id, problem.message)
            })
            .collect(),
    };
    assert_eq!(found, expected);
}

fn check_policy(text: &str, expected: &[&str]) {
    check(&with_policies(vec![policy(None, "p.cedar", text)]), expected);
}

#[test]
fn the_default_pack_is_valid() {
    let policies = compile(&governance());
    assert!(policies.rules().iter().all(|rule| rule.message.is_some() && !rule.id.contains('#')));
}
