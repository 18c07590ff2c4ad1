//! Version arithmetic.

use semver::Version;

use super::*;

fn change(bump: Bump) -> ContractChange {
    let rule = ALL.iter().find(|rule| rule.bump == bump).copied().expect("a rule of each size");
    let path = ContractPath::root().join("x");
    ContractChange { path, rule, before: None, after: None, message: String::new(), columns: Vec::new() }
}

/// Judges the step; the answer is `ok`, or why it is refused and the least version that is enough.
#[track_caller]
fn judged(before: &str, after: &str, bumps: &[Bump], acknowledged: bool, expected: &str) {
    let version = |text: &str| Version::parse(text).expect("a version");
    let changes: Vec<ContractChange> = bumps.iter().map(|bump| change(*bump)).collect();
    let found = match judge(&version(before), &version(after), &changes, acknowledged) {
        Ok(_) => "ok".to_owned(),
        Err(refused) => {
            let why = match refused.why {
                Why::SameVersion => "same",
                Why::LowerVersion => "lower",
                Why::SmallStep => "small",
            };
            format!("{why} {}{}", refused.least, if refused.acknowledging_helps { " or acknowledge" } else { "" })
        }
    };
    assert_eq!(found, expected, "{before} to {after}, {bumps:?}");
}

#[test]
fn a_step_is_as_large_as_the_largest_change() {
    use Bump::{Major, Minor, Patch, Review};
    for (before, after, bumps, expected) in [
        ("1.2.3", "1.2.3", vec![], "ok"),
        ("1.2.3", "1.2.4", vec![], "ok"),
        ("1.2.3", "1.2.3", vec![Patch], "same 1.2.4"),
        ("1.2.3", "1.2.3+build.2", vec![Patch], "same 1.2.4"),
        ("1.2.3", "1.2.2", vec![], "lower 1.2.3"),
        ("1.2.3", "1.2.2", vec![Major], "lower 2.0.0"),
        ("2.0.0", "1.9.9", vec![Patch], "lower 2.0.1"),
        ("1.2.3", "1.2.4", vec![Patch], "ok"),
        ("1.2.3", "1.2.9", vec![Minor], "small 1.3.0"),
        ("1.2.3", "1.3.0", vec![Minor, Patch], "ok"),
        ("1.2.3", "1.9.0", vec![Minor, Major], "small 2.0.0"),
        ("1.2.3", "2.0.0", vec![Minor, Major], "ok"),
        ("1.2.3", "7.0.0", vec![Major, Review], "ok"),
        ("1.2.3", "1.3.0", vec![Review], "small 2.0.0 or acknowledge"),
        ("1.2.3", "1.2.4", vec![Review], "small 2.0.0"),
        ("1.2.3", "1.3.0", vec![Review, Major], "small 2.0.0"),
    ] {
        judged(before, after, &bumps, false, expected);
    }
    judged("1.2.3", "1.3.0", &[Review], true, "ok");
    judged("1.2.3", "1.2.4", &[Review], true, "small 1.3.0");
    judged("1.2.3", "1.3.0", &[Review, Major], true, "small 2.0.0");
}

#[test]
fn below_one_a_breaking_change_needs_a_minor_version() {
    use Bump::{Major, Minor, Patch, Review};
    for (before, after, bumps, expected) in [
        ("0.1.0", "0.2.0", vec![Major], "ok"),
        ("0.1.0", "0.1.1", vec![Major], "small 0.2.0"),
        ("0.1.0", "0.1.1", vec![Minor], "small 0.2.0"),
        ("0.1.0", "0.1.1", vec![Patch], "ok"),
        ("0.1.0", "0.2.0", vec![Review], "ok"),
        ("0.1.0", "1.0.0", vec![Major], "ok"),
        ("0.1.0", "0.1.0", vec![Major], "same 0.2.0"),
    ] {
        judged(before, after, &bumps, false, expected);
    }
}

#[test]
fn a_pre_release_promises_what_its_release_may_change() {
    use Bump::{Major, Minor, Patch};
    for (before, after, bumps, expected) in [
        ("2.0.0-rc.1", "2.0.0-rc.2", vec![Major], "ok"),
        ("2.0.0-rc.1", "2.0.0", vec![Major], "ok"),
        ("2.0.0-rc.1", "2.0.0-rc.1", vec![Patch], "same 2.0.0"),
        ("1.2.0-rc.1", "1.2.0", vec![Minor], "ok"),
        ("1.2.0-rc.1", "1.2.0", vec![Major], "small 2.0.0"),
        ("1.2.3-rc.1", "1.2.3", vec![Minor], "small 1.3.0"),
        ("1.1.0", "1.2.0-rc.1", vec![Major], "small 2.0.0"),
        ("1.1.0", "2.0.0-rc.1", vec![Major], "ok"),
        ("1.0.0", "1.0.0-rc.1", vec![], "lower 1.0.0"),
        ("0.2.0-rc.1", "0.2.0", vec![Major], "ok"),
    ] {
        judged(before, after, &bumps, false, expected);
    }
}

#[test]
fn a_refusal_says_which_changes_and_what_to_do() {
    let changes = [change(Bump::Patch), change(Bump::Review), change(Bump::Minor)];
    let refused = judge(&Version::new(1, 0, 0), &Version::new(1, 1, 0), &changes, false).expect_err("too small");
    assert_eq!(refused.changes, [change(Bump::Review)]);
    assert_eq!(refused.to_string(), "1.0.0 to 1.1.0 is too small a step: the changes need a major one");
    let error = crate::Error::from(*refused);
    assert_eq!(
        error.help(),
        Some("set `version: 2.0.0` or higher, or add `--acknowledge` where the changes to review break nobody")
    );
}
