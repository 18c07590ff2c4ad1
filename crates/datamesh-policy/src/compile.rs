//! Policies from their texts: parsed, checked against the schema, and sorted by what they are about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use cedar_policy::{
    ActionConstraint, EntityId, EntityUid, ParseErrors, Policy, PolicyId, PolicySet, ResourceConstraint, Schema,
    ValidationMode, ValidationWarning, Validator,
};
use datamesh_core::access::{Governance, PolicyFile};
use datamesh_core::decision::Action;
use datamesh_core::diagnostic::Location;
use miette::Diagnostic as _;
use serde_json::Value;

use crate::entity::{Interest, Kind, resources_of};
use crate::principal::Directory;
use crate::problem::{PolicyProblem, locate};
use crate::rule::{ANNOTATIONS, PolicyEffect, Rule, Severity, effect};

/// The file that reasons name for policies of the default pack.
pub const PACK_FILE: &str = "default.cedar";

/// The default pack's text.
pub const PACK: &str = include_str!("default.cedar");

/// Reads the policies of the default pack, where it holds, and of all files.
pub(crate) fn read_rules(governance: &Governance, directory: &Directory) -> (Vec<Rule>, Vec<PolicyProblem>) {
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    let pack = PolicyFile { domain: None, path: PACK_FILE.to_owned(), text: PACK.to_owned() };
    read_file(&pack, directory, &mut rules, &mut problems);
    let known: BTreeSet<String> = rules.iter().map(|rule| rule.id.clone()).collect();
    for id in governance.disabled.iter().filter(|id| !known.contains(*id)) {
        problems.push(PolicyProblem::of_mesh(
            "unknown-policy",
            &["policies", "disable", id],
            format!("the default pack has no policy `{id}`"),
            Some(format!("its policies are: {}", known.iter().cloned().collect::<Vec<_>>().join(", "))),
        ));
    }
    rules.retain(|rule| !governance.disabled.contains(&rule.id));
    // By path, so that the order in which files were found says nothing.
    let mut files: Vec<&PolicyFile> = governance.policies.iter().collect();
    files.sort_by(|a, b| (&a.path, &a.domain).cmp(&(&b.path, &b.domain)));
    for file in files {
        read_file(file, directory, &mut rules, &mut problems);
    }
    let mut first: BTreeMap<String, Location> = BTreeMap::new();
    for rule in &rules {
        if let Some(location) = first.get(&rule.id) {
            problems.push(PolicyProblem {
                location: rule.location.clone(),
                id: "duplicate-policy-id",
                message: format!("there is another policy `{}`", rule.id),
                help: Some(if location.file == PACK_FILE {
                    format!(
                        "it is of the default pack: switch that one off with `policies: {{disable: [{}]}}`, or take another `@id`",
                        rule.id
                    )
                } else {
                    format!("it is in {}:{}; take another `@id`", location.file, location.line)
                }),
                path: Vec::new(),
            });
            continue;
        }
        first.insert(rule.id.clone(), rule.location.clone());
    }
    (rules, problems)
}

fn read_file(file: &PolicyFile, directory: &Directory, rules: &mut Vec<Rule>, problems: &mut Vec<PolicyProblem>) {
    let parsed = match PolicySet::from_str(&file.text) {
        Ok(parsed) => parsed,
        Err(errors) => return problems.extend(parse_problems(file, &errors)),
    };
    for template in parsed.templates() {
        problems.push(PolicyProblem {
            location: place_of(file, template.as_ref().loc().map(|loc| (loc.start(), loc.end()))),
            id: "policy-template",
            message: "a policy with `?principal` or `?resource` is a template, which nothing would fill in".to_owned(),
            help: Some("name the principal or resource, or leave it open".to_owned()),
            path: Vec::new(),
        });
    }
    let mut found: Vec<(Location, &Policy)> = parsed
        .policies()
        .map(|policy| (place_of(file, policy.as_ref().loc().map(|loc| (loc.start(), loc.end()))), policy))
        .collect();
    found.sort_by_key(|(location, _)| location.offset);
    for (at, (location, policy)) in found.into_iter().enumerate() {
        rules.push(read_policy(file, at, location, policy, directory, problems));
    }
}

fn place_of(file: &PolicyFile, span: Option<(usize, usize)>) -> Location {
    let (start, end) = span.unwrap_or((0, 0));
    locate(&file.path, &file.text, start, end.saturating_sub(start))
}

fn parse_problems(file: &PolicyFile, errors: &ParseErrors) -> Vec<PolicyProblem> {
    errors
        .iter()
        .map(|error| {
            let label = error.labels().and_then(|mut labels| labels.next());
            let said = label.as_ref().and_then(|label| label.label().map(str::to_owned));
            let span = label.map(|label| (label.offset(), label.offset() + label.len()));
            PolicyProblem {
                location: place_of(file, span),
                id: "policy-syntax",
                message: match said {
                    Some(said) => format!("{error}: {said}"),
                    None => error.to_string(),
                },
                help: error.help().map(|help| help.to_string()),
                path: Vec::new(),
            }
        })
        .collect()
}

fn read_policy(
    file: &PolicyFile,
    at: usize,
    location: Location,
    policy: &Policy,
    directory: &Directory,
    problems: &mut Vec<PolicyProblem>,
) -> Rule {
    let mut problem = |id: &'static str, message: String, help: Option<&str>| {
        problems.push(PolicyProblem {
            location: location.clone(),
            id,
            message,
            help: help.map(str::to_owned),
            path: Vec::new(),
        });
    };
    let effect = effect(policy);
    let named = policy.annotation("id").filter(|id| !id.is_empty());
    if policy.annotation("id").is_some() && named.is_none() {
        problem("policy-annotation", "`@id` is empty".to_owned(), Some("write such as `@id(\"no-exports\")`"));
    }
    let id = named.map_or_else(|| format!("{}#{}", file.path, at + 1), str::to_owned);
    for (name, _) in policy.annotations().filter(|(name, _)| !ANNOTATIONS.contains(name)) {
        let help = format!("there are: @{}", ANNOTATIONS.join(", @"));
        problem("policy-annotation", format!("`@{name}` means nothing here"), Some(&help));
    }
    let severity = policy.annotation("severity").and_then(|word| {
        let severity = Severity::parse(word);
        if severity.is_none() {
            problem("policy-annotation", format!("`{word}` is no severity"), Some("there are: deny, warn, advise"));
        }
        severity
    });
    if severity.is_some() && effect == PolicyEffect::Permit {
        problem(
            "policy-annotation",
            "a `permit` has no severity".to_owned(),
            Some("a severity says how much it matters that a `forbid` applies"),
        );
    }
    let judged = [Action::Publish, Action::Apply];
    if severity.is_some() && !actions_of(policy).iter().all(|action| judged.contains(action)) {
        problem(
            "policy-annotation",
            "a severity is for what is judged on `publish` and `apply`; other actions are forbidden or not".to_owned(),
            Some("name the actions: `action in [Action::\"publish\", Action::\"apply\"]`, or take `@severity` out"),
        );
    }
    for literal in policy.entity_literals() {
        let name: &str = literal.id().unescaped();
        if literal.type_name().to_string() == Kind::Role.as_str() && !directory.is_role(name) {
            problem(
                "unknown-role",
                format!("nobody declares the role `{name}`"),
                Some("declare it under `roles` of mesh.yaml"),
            );
        }
    }
    if let (Some(domain), Some(other)) = (&file.domain, scope_domain(policy))
        && *domain != other
    {
        problem(
            "policy-of-another-domain",
            format!(
                "it is about the domain `{other}`, but a policy of `{domain}` counts for that domain's resources only"
            ),
            Some("put it into the other domain's policies, or into the mesh's"),
        );
    }
    Rule {
        id,
        domain: file.domain.clone(),
        effect,
        severity: severity.filter(|_| effect == PolicyEffect::Forbid),
        message: policy.annotation("message").map(str::to_owned),
        help: policy.annotation("help").map(str::to_owned),
        owner: policy.annotation("owner").map(str::to_owned),
        text: file.text.get(location.offset..location.offset + location.length).unwrap_or_default().to_owned(),
        policy: policy.clone(),
        location,
    }
}

/// The domain, by normalised name, that a policy's scope names for its resource.
fn scope_domain(policy: &Policy) -> Option<String> {
    let named = match policy.resource_constraint() {
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => uid,
        ResourceConstraint::Any | ResourceConstraint::Is(_) => return None,
    };
    let kind = Kind::of_resource(&named.type_name().to_string())?;
    let id: &str = named.id().unescaped();
    (kind != Kind::Mesh).then(|| sql(id.split('/').next().unwrap_or(id)))
}

fn sql(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// The actions that a policy's scope admits.
pub(crate) fn actions_of(policy: &Policy) -> Vec<Action> {
    let named = |uid: &EntityUid| Action::parse(uid.id().unescaped());
    match policy.action_constraint() {
        ActionConstraint::Any => Action::ALL.to_vec(),
        ActionConstraint::Eq(uid) => named(&uid).into_iter().collect(),
        ActionConstraint::In(uids) => uids.iter().filter_map(named).collect(),
    }
}

/// The kinds of resources that a policy's scope admits.
fn kinds_of(policy: &Policy) -> Vec<Kind> {
    let kind = |name: &str| Kind::of_resource(name);
    let below = |uid: &EntityUid| -> Vec<Kind> {
        let Some(above) = kind(&uid.type_name().to_string()) else { return Vec::new() };
        Kind::RESOURCES.into_iter().filter(|own| own.can_be_in(above)).collect()
    };
    match policy.resource_constraint() {
        ResourceConstraint::Any => Kind::RESOURCES.to_vec(),
        ResourceConstraint::Is(name) => kind(&name.to_string()).into_iter().collect(),
        ResourceConstraint::Eq(uid) => kind(&uid.type_name().to_string()).into_iter().collect(),
        ResourceConstraint::In(uid) => below(&uid),
        ResourceConstraint::IsIn(name, uid) => {
            let named = kind(&name.to_string());
            below(&uid).into_iter().filter(|own| Some(*own) == named).collect()
        }
    }
}

/// Checks policies against the schema.
pub(crate) fn validate(rules: &[Rule], schema: &Schema, files: &HashMap<&str, &str>) -> Vec<PolicyProblem> {
    let mut set = PolicySet::new();
    for (at, rule) in rules.iter().enumerate() {
        // The number is unique, so that nothing can go wrong here.
        let _ = set.add(rule.policy.new_id(PolicyId::new(at.to_string())));
    }
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let errors: Vec<(&PolicyId, &dyn miette::Diagnostic)> =
        result.validation_errors().map(|error| (error.policy_id(), error as &dyn miette::Diagnostic)).collect();
    let wrong: BTreeSet<&PolicyId> = errors.iter().map(|(id, _)| *id).collect();
    // What is wrong explains why a policy never holds, and so does a scope without an action.
    let inapplicable: BTreeSet<&PolicyId> = result
        .validation_warnings()
        .filter(|warning| matches!(warning, ValidationWarning::InvalidActionApplication(_)))
        .map(ValidationWarning::policy_id)
        .collect();
    let warnings = result
        .validation_warnings()
        .filter(|warning| !wrong.contains(warning.policy_id()))
        .filter(|warning| {
            !matches!(warning, ValidationWarning::ImpossiblePolicy(_)) || !inapplicable.contains(warning.policy_id())
        })
        .map(|warning| (warning.policy_id(), warning as &dyn miette::Diagnostic));
    let mut problems: Vec<PolicyProblem> = errors
        .into_iter()
        .chain(warnings)
        .filter_map(|(id, said)| {
            let rule = rules.get(AsRef::<str>::as_ref(id).parse::<usize>().ok()?)?;
            let label = said.labels().and_then(|mut labels| labels.next());
            let text = files.get(rule.location.file.as_str()).copied().unwrap_or_default();
            let location = match label {
                Some(label) => locate(&rule.location.file, text, label.offset(), label.len()),
                None => rule.location.clone(),
            };
            Some(PolicyProblem {
                location,
                id: "policy-invalid",
                message: said.to_string().replace(&format!("for policy `{}`, ", AsRef::<str>::as_ref(id)), ""),
                help: said.help().map(|help| help.to_string()),
                path: Vec::new(),
            })
        })
        .collect();
    problems.sort();
    problems.dedup();
    problems
}

/// Policies with what they look at of the resource, so that no more of it is built, and resources that are alike in that
/// are asked about once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) set: PolicySet,
    pub(crate) interest: Interest,
}

impl Asked {
    fn add(&mut self, policy: &Policy, interest: &Interest) -> Result<(), String> {
        self.set.add(policy.clone()).map_err(|error| error.to_string())?;
        self.interest.merge(interest);
        Ok(())
    }
}

/// What is asked of one kind of resource for one action.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    /// Permits, and the `forbid`s without a severity.
    pub(crate) access: Asked,
    /// All `forbid`s: what manifests are judged by.
    pub(crate) governance: Asked,
}

/// The slices of one layer.
pub(crate) type Layer = HashMap<(Action, Kind), Slice>;

/// The policies by layer: the mesh's, and each domain's.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) mesh: Layer,
    pub(crate) domains: HashMap<String, Layer>,
}

impl Layers {
    /// Sorts rules by what their scopes are about. A scope that does not match makes a policy false before anything can
    /// err, so that leaving it out changes nothing.
    pub(crate) fn new(rules: &[Rule]) -> Result<Self, String> {
        let mut layers = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            let policy = normalised(&rule.policy)?.new_id(PolicyId::new(at.to_string()));
            let interest = interest(&policy);
            let kinds = kinds_of(&policy);
            let layer = match &rule.domain {
                None => &mut layers.mesh,
                Some(domain) => layers.domains.entry(domain.clone()).or_default(),
            };
            for action in actions_of(&policy) {
                for kind in resources_of(action).iter().filter(|kind| kinds.contains(kind)) {
                    let slice = layer.entry((action, *kind)).or_default();
                    let access = rule.effect == PolicyEffect::Permit || rule.severity.is_none();
                    let judged =
                        rule.effect == PolicyEffect::Forbid && matches!(action, Action::Publish | Action::Apply);
                    if access {
                        slice.access.add(&policy, &interest)?;
                    }
                    if judged {
                        slice.governance.add(&policy, &interest)?;
                    }
                }
            }
        }
        Ok(layers)
    }
}

/// The policy with the names of resources as they are compared: domains, products and tables as SQL spells them, users in
/// lower case.
fn normalised(policy: &Policy) -> Result<Policy, String> {
    let mut mapping = BTreeMap::new();
    for literal in policy.entity_literals() {
        let id: &str = literal.id().unescaped();
        let name = literal.type_name().to_string();
        let spelled = match Kind::of_resource(&name) {
            Some(Kind::Domain | Kind::Product | Kind::Table) => sql(id),
            Some(Kind::Column) => {
                let mut parts = id.splitn(3, '.');
                let mut spelled: Vec<String> = parts.by_ref().take(2).map(sql).collect();
                spelled.extend(parts.map(str::to_owned));
                spelled.join(".")
            }
            Some(Kind::Port) => match id.split_once('#') {
                Some((product, port)) => format!("{}#{port}", sql(product)),
                None => continue,
            },
            _ if name == Kind::User.as_str() => id.to_lowercase(),
            _ => continue,
        };
        if spelled != id {
            let to = EntityUid::from_type_name_and_id(literal.type_name().clone(), EntityId::new(&spelled));
            mapping.insert(literal.clone(), to);
        }
    }
    if mapping.is_empty() {
        return Ok(policy.clone());
    }
    policy.sub_entity_literals(mapping).map_err(|error| error.to_string())
}

/// What a policy looks at. Cedar has no way to reach an attribute whose name is not written in the policy.
fn interest(policy: &Policy) -> Interest {
    let mut found = Interest::default();
    for literal in policy.entity_literals() {
        match Kind::of_resource(&literal.type_name().to_string()) {
            Some(Kind::Product | Kind::Table | Kind::Column | Kind::Port | Kind::Request) => found.names_one = true,
            // Whether something lies in a domain is seen by its domain.
            Some(Kind::Domain) => {
                found.attributes.insert("domain".to_owned());
            }
            _ => {}
        }
    }
    match policy.to_json() {
        Ok(json) => attributes(&json, &mut found),
        Err(_) => (found.all, found.names_one) = (true, true),
    }
    found
}

/// Collects the attributes that a policy's JSON form names: `{".": {"left": …, "attr": "name"}}`, `has` alike.
fn attributes(json: &Value, found: &mut Interest) {
    match json {
        Value::Array(items) => items.iter().for_each(|item| attributes(item, found)),
        Value::Object(entries) => {
            match entries.get("attr") {
                Some(Value::String(name)) => {
                    found.attributes.insert(name.clone());
                }
                Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
                    found.attributes.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                // A form that is not known here.
                Some(_) => (found.all, found.names_one) = (true, true),
                None => {}
            }
            entries.values().for_each(|value| attributes(value, found));
        }
        _ => {}
    }
}
