#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;

use super::*;

const FILE: &str = "domains/a b/product.yaml";
const SOURCE: &str = "dataProduct:\n  ñame: x\n  version: 1.0.0\n";

fn finding(rule: &str, level: Level, (line, column, offset, length): (usize, usize, usize, usize)) -> Finding {
    Finding {
        rule: rule.to_owned(),
        about: format!("what {rule} is"),
        level,
        message: "100% wrong: a, b\nand `c`".to_owned(),
        help: Some("mend it".to_owned()),
        location: Location { file: FILE.to_owned(), line, column, offset, length },
        identity: None,
    }
}

fn sources() -> BTreeMap<String, String> {
    BTreeMap::from([(FILE.to_owned(), SOURCE.to_owned())])
}

fn log(findings: &[Finding]) -> Value {
    serde_json::to_value(sarif::log(findings, &sources(), Path::new("/repository"))).unwrap()
}

#[test]
fn a_log_has_what_the_standard_requires() {
    let offset = SOURCE.find("ñame").unwrap();
    let findings = [
        finding("unknown-key", Level::Error, (2, 3, offset, "ñame".len())),
        finding("not-enforced", Level::Note, (0, 0, 0, 0)),
        finding("unknown-key", Level::Warning, (2, 3, offset, "ñame".len())),
    ];
    let log = log(&findings);
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().ends_with("sarif-schema-2.1.0.json"));
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!((&driver["name"], &run["columnKind"]), (&"datamesh".into(), &"unicodeCodePoints".into()));
    let rules = driver["rules"].as_array().unwrap();
    let ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["not-enforced", "unknown-key"], "each rule is described once");
    for rule in rules {
        assert!(rule["shortDescription"]["text"].as_str().unwrap().starts_with("what "));
        assert!(["error", "warning", "note"].contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()));
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for (result, level) in results.iter().zip(["error", "note", "warning"]) {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert_eq!(result["level"], level);
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "domains/a%20b/product.yaml");
        assert_eq!(place["artifactLocation"]["uriBaseId"], "%SRCROOT%");
    }
    let region = &results[0]["locations"][0]["physicalLocation"]["region"];
    assert_eq!(*region, serde_json::json!({"startLine": 2, "startColumn": 3, "endLine": 2, "endColumn": 7}));
    assert_eq!(results[1]["locations"][0]["physicalLocation"].get("region"), None, "the whole file has no region");
    let fingerprint = |at: usize| results[at]["partialFingerprints"]["datamesh/v1"].as_str().unwrap().to_owned();
    assert_ne!(fingerprint(0), fingerprint(1));
    assert_ne!(fingerprint(0), fingerprint(2), "equal findings on equal lines are told apart");
}

#[test]
fn a_fingerprint_stays_when_lines_move() {
    let offset = SOURCE.find("version").unwrap();
    let before = log(&[finding("r", Level::Error, (3, 3, offset, 7))]);
    let moved = BTreeMap::from([(FILE.to_owned(), format!("# a comment\n{SOURCE}"))]);
    let finding = finding("r", Level::Error, (4, 3, offset + 12, 7));
    let after = serde_json::to_value(sarif::log(&[finding], &moved, Path::new("/repository"))).unwrap();
    let fingerprint = |log: &Value| log["runs"][0]["results"][0]["partialFingerprints"].clone();
    assert_eq!(fingerprint(&before), fingerprint(&after));
}

#[test]
fn files_elsewhere_have_absolute_uris() {
    let mut one = finding("r", Level::Error, (1, 1, 0, 0));
    for (file, uri) in
        [("/repository/x/p.yaml", "x/p.yaml"), ("./x/../p.yaml", "p.yaml"), ("/else/p%.yaml", "file:///else/p%25.yaml")]
    {
        one.location.file = file.to_owned();
        let log = log(std::slice::from_ref(&one));
        assert_eq!(log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], uri);
    }
}

#[test]
fn commands_are_escaped_as_github_demands() {
    let offset = SOURCE.find("ñame").unwrap();
    let mut one = finding("unknown-key", Level::Error, (2, 3, offset, "ñame".len()));
    one.location.file = "a,b:c%.yaml".to_owned();
    let sources = BTreeMap::from([(one.location.file.clone(), SOURCE.to_owned())]);
    let command = github::command(&one, &sources, Path::new("/repository"));
    assert_eq!(
        command,
        "::error file=a%2Cb%3Ac%25.yaml,line=2,endLine=2,col=3,endColumn=7,title=unknown-key::100%25 wrong: a, b%0Aand `c` (help: mend it)"
    );
    let whole = finding("not-enforced", Level::Note, (0, 0, 0, 0));
    let command = github::command(&whole, &sources, Path::new("/repository"));
    assert!(command.starts_with("::notice file=domains/a b/product.yaml,title=not-enforced::"), "{command}");
    // Over several lines there are no columns.
    let long = finding("r", Level::Warning, (1, 1, 0, SOURCE.len()));
    let command = github::command(&long, &super::tests::sources(), Path::new("/repository"));
    assert!(command.contains("line=1,endLine=3,title=r::"), "{command}");
}
