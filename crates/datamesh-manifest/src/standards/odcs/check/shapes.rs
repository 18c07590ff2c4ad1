//! The objects of the standard that are no more than their keys.

use super::{Checker, Key, Object, Rule, Version, Word, property, rule, server};
use crate::yaml::{Kind, Node};

pub(super) const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule, since: V30 }
}

pub(super) const fn since(version: Version, name: &'static str, rule: Rule) -> Key {
    Key { name, rule, since: version }
}

pub(super) const V30: Version = Version::V3_0_2;
pub(super) const V31: Version = Version::V3_1_0;
pub(super) const V32: Version = Version::V3_2_0;

pub(super) const ID: Key = since(V31, "id", Rule::StableId);
pub(super) const TAGS: Key = key("tags", TEXTS);
pub(super) const TEXTS: Rule = Rule::List(&Rule::Text);
const DEFINITION_LIST: Rule = Rule::List(&Rule::Object(&DEFINITION));
const CUSTOM_LIST: Rule = Rule::List(&Rule::Object(&CUSTOM));
pub(super) const DEFINITIONS: Key = key("authoritativeDefinitions", DEFINITION_LIST);
pub(super) const PROPERTIES: Key = key("customProperties", CUSTOM_LIST);
pub(super) const QUALITY: Key = key("quality", Rule::List(&Rule::Own(rule::check)));

const fn object(keys: &'static [Key], required: &'static [&'static str]) -> Object {
    Object { keys, required, open_in_3_0: true, also: None }
}

pub(super) static CONTRACT: Object = Object {
    keys: &[
        key("version", Rule::Text),
        key("kind", Rule::Word(&[Word("DataContract", V30)])),
        key("apiVersion", Rule::Text),
        key("id", Rule::Text),
        key("name", Rule::Text),
        key("tenant", Rule::Text),
        TAGS,
        key("status", Rule::Text),
        key("servers", Rule::List(&Rule::Own(server::check))),
        key("dataProduct", Rule::Text),
        key("description", Rule::Own(description)),
        key("domain", Rule::Text),
        since(V32, "context", Rule::Own(context)),
        key("schema", Rule::List(&Rule::Object(&property::TABLE))),
        key("support", Rule::List(&Rule::Object(&SUPPORT))),
        key("price", Rule::Object(&PRICE)),
        key("team", Rule::Own(team)),
        key("roles", Rule::List(&Rule::Object(&ROLE))),
        key("slaDefaultElement", Rule::Text),
        key("slaProperties", Rule::List(&Rule::Object(&SLA))),
        DEFINITIONS,
        PROPERTIES,
        key("contractCreatedTs", Rule::Text),
    ],
    required: &["version", "apiVersion", "kind", "id"],
    open_in_3_0: false,
    also: Some(|checker, node| {
        if checker.version < V32 {
            checker.require(node, &["status"]);
        }
    }),
};

static DEFINITION: Object = object(
    &[ID, key("url", Rule::Text), key("type", Rule::Text), since(V31, "description", Rule::Text)],
    &["url", "type"],
);

pub(super) static CUSTOM: Object = Object {
    keys: &[
        ID,
        key("property", Rule::Text),
        key("value", Rule::Any),
        since(V31, "description", Rule::Text),
        since(V32, "vendor", Rule::Text),
    ],
    required: &[],
    open_in_3_0: true,
    also: Some(|checker, node| {
        if !checker.version.is_3_0() || checker.strict {
            checker.require(node, &["property", "value"]);
        }
    }),
};

static SUPPORT: Object = Object {
    keys: &[
        ID,
        key("channel", Rule::Text),
        key("url", Rule::Text),
        key("description", Rule::Text),
        key("tool", Rule::Text),
        key("scope", Rule::Text),
        key("invitationUrl", Rule::Text),
        since(V31, "customProperties", CUSTOM_LIST),
    ],
    required: &["channel"],
    open_in_3_0: true,
    also: Some(|checker, node| {
        if checker.version.is_3_0() {
            checker.require(node, &["url"]);
        }
    }),
};

static PRICE: Object = object(
    &[ID, key("priceAmount", Rule::Number), key("priceCurrency", Rule::Text), key("priceUnit", Rule::Text)],
    &[],
);

static MEMBER: Object = Object {
    keys: &[
        ID,
        key("username", Rule::Text),
        key("name", Rule::Text),
        key("description", Rule::Text),
        key("role", Rule::Text),
        key("dateIn", Rule::Text),
        key("dateOut", Rule::Text),
        key("replacedByUsername", Rule::Text),
        since(V31, "tags", TEXTS),
        since(V31, "customProperties", CUSTOM_LIST),
        since(V31, "authoritativeDefinitions", DEFINITION_LIST),
    ],
    required: &[],
    open_in_3_0: true,
    also: Some(|checker, node| {
        if !checker.version.is_3_0() {
            checker.require(node, &["username"]);
        }
    }),
};

static TEAM: Object = object(
    &[
        ID,
        key("name", Rule::Text),
        key("description", Rule::Text),
        key("members", Rule::List(&Rule::Object(&MEMBER))),
        TAGS,
        PROPERTIES,
        DEFINITIONS,
    ],
    &[],
);

pub(super) static ROLE: Object = object(
    &[
        ID,
        key("role", Rule::Text),
        key("description", Rule::Text),
        key("access", Rule::Text),
        key("firstLevelApprovers", Rule::Text),
        key("secondLevelApprovers", Rule::Text),
        PROPERTIES,
    ],
    &["role"],
);

static SLA: Object = object(
    &[
        ID,
        key("property", Rule::Text),
        key("value", Rule::Scalar),
        key("valueExt", Rule::Scalar),
        key("unit", Rule::Text),
        key("element", Rule::Text),
        key("driver", Rule::Text),
        since(V31, "description", Rule::Text),
        since(V31, "scheduler", Rule::Text),
        since(V31, "schedule", Rule::Text),
        since(V32, "customProperties", CUSTOM_LIST),
        since(V32, "authoritativeDefinitions", DEFINITION_LIST),
    ],
    &["property", "value"],
);

/// The description is open in every version.
fn description(checker: &mut Checker<'_, '_>, node: &Node) {
    static KEYS: &[Key] = &[
        key("usage", Rule::Text),
        key("purpose", Rule::Text),
        key("limitations", Rule::Text),
        DEFINITIONS,
        PROPERTIES,
    ];
    let Kind::Mapping(entries) = &node.kind else { return checker.wrong(node, "an object") };
    for (name, value) in entries {
        let text = name.text().unwrap_or_default();
        if let Some(key) = KEYS.iter().find(|key| key.name == text) {
            checker.within(text, |inner| inner.rule(value, &key.rule));
        }
    }
}

/// A list of members, or since 3.1 an object that has them.
fn team(checker: &mut Checker<'_, '_>, node: &Node) {
    static MEMBERS: Rule = Rule::Object(&MEMBER);
    match &node.kind {
        Kind::Mapping(_) if !checker.version.is_3_0() => checker.object(node, &TEAM),
        _ => checker.list(node, &MEMBERS),
    }
}

/// Guidance for machines: a text, or an object.
pub(super) fn context(checker: &mut Checker<'_, '_>, node: &Node) {
    static STATEMENT: Object = object(
        &[key("id", Rule::Text), key("question", Rule::Text), key("answer", Rule::Text), DEFINITIONS, TAGS, PROPERTIES],
        &["question"],
    );
    static CONSTRAINT: Object =
        object(&[key("id", Rule::Text), key("constraint", Rule::Text), DEFINITIONS, TAGS, PROPERTIES], &["constraint"]);
    static CONTEXT: Object = object(
        &[
            key("instructions", Rule::Text),
            key("verifiedStatements", Rule::List(&Rule::Object(&STATEMENT))),
            key("constraints", Rule::List(&Rule::Object(&CONSTRAINT))),
        ],
        &[],
    );
    static TEXT: Rule = Rule::Text;
    match &node.kind {
        Kind::Scalar { .. } => checker.rule(node, &TEXT),
        _ => checker.object(node, &CONTEXT),
    }
}

pub(super) static SYNONYM: Object = object(
    &[
        ID,
        key("synonym", Rule::Text),
        key("description", Rule::Text),
        key("locale", Rule::Text),
        key("source", Rule::Text),
        key("status", Rule::Text),
        PROPERTIES,
    ],
    &["synonym"],
);

pub(super) static ENUM_VALUE: Object = object(
    &[
        key("value", Rule::Scalar),
        key("label", Rule::Text),
        ID,
        key("description", Rule::Text),
        PROPERTIES,
        DEFINITIONS,
        TAGS,
    ],
    &["value"],
);
