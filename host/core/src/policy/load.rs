//! From policy files to checked policies, with every problem reported at once. Evaluates nothing.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use cedar_policy::{
    Policy, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator,
};
use miette::Diagnostic;

use super::annotations::{Annotations, CanIssue};
use super::entities::{KnownEntities, Model};
use super::report::{Place, Report};
use super::{
    Deciding, GUARDRAILS, Guardrail, OPERATORS, PolicyFile, PolicyNote, PolicyProblem, slice,
};

/// Policies that may decide, and what is noteworthy about them.
pub(super) struct Checked {
    pub(super) policies: Vec<Policy>,
    pub(super) deciding: HashMap<PolicyId, Deciding>,
    pub(super) notes: Vec<PolicyNote>,
    pub(super) warnings: Vec<PolicyProblem>,
}

/// Parses and checks the built-in guardrails and the user's files.
pub(super) fn check(
    user_files: &[PolicyFile],
    schema: &Schema,
    model: &Model,
    known: &KnownEntities,
) -> Result<Checked, Vec<PolicyProblem>> {
    let file =
        |(path, text): (&str, &str)| PolicyFile { path: path.to_owned(), text: text.to_owned() };
    let built_in = [(GUARDRAILS_PATH, GUARDRAILS), (OPERATORS_PATH, OPERATORS)].map(file);
    let [guardrails, _] = &built_in;
    let mut loading =
        Loading { model, report: Report::default(), parsed: vec![], by_id: HashMap::new() };
    for file in &built_in {
        loading.file(file, Origin::BuiltIn);
    }
    if user_files.len() > FILES_MAX {
        let message =
            format!("{} policy files are more than {FILES_MAX}: join some", user_files.len());
        loading.report.add(&Place::start_of(guardrails), message);
        return Err(loading.report.into_problems());
    }
    for file in user_files {
        loading.file(file, Origin::User);
    }
    let Loading { mut report, parsed, by_id, .. } = loading;
    validate(schema, &parsed, &by_id, &mut report);
    let problems = report.into_problems();
    if !problems.is_empty() {
        return Err(problems);
    }
    let warnings = warn_of_missing(&parsed, model, known);
    let deciding = parsed.iter().map(|p| (p.policy.id().clone(), p.deciding.clone())).collect();
    let notes = parsed.iter().map(note).collect();
    let policies = parsed.into_iter().map(|p| p.policy).collect();
    Ok(Checked { policies, deciding, notes, warnings })
}

fn note(parsed: &Parsed<'_>) -> PolicyNote {
    let annotations = parsed.policy.annotations();
    PolicyNote {
        id: parsed.deciding.id.clone(),
        place: parsed.place.to_string(),
        effect: parsed.policy.effect(),
        annotations: annotations.map(|(name, value)| (name.into(), value.into())).collect(),
    }
}

struct Loading<'a> {
    model: &'a Model,
    report: Report,
    parsed: Vec<Parsed<'a>>,
    /// Where in `parsed` the policy of that id is.
    by_id: HashMap<PolicyId, usize>,
}

struct Parsed<'a> {
    policy: Policy,
    deciding: Deciding,
    place: Place<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    BuiltIn,
    User,
}

impl<'a> Loading<'a> {
    fn file(&mut self, file: &'a PolicyFile, origin: Origin) {
        let start = Place::start_of(file);
        if file.text.len() > FILE_BYTES_MAX {
            let message = format!(
                "the file has {} bytes, more than {FILE_BYTES_MAX}: split it",
                file.text.len()
            );
            return self.report.add(&start, message);
        }
        let set: PolicySet = match file.text.parse() {
            Ok(set) => set,
            Err(errors) => {
                for error in errors.iter() {
                    self.report.add(&start.of_diagnostic(error), sentence(error));
                }
                return;
            }
        };
        for template in set.templates() {
            let place = start.at(template.as_ref().loc().map(|loc| loc.start()));
            let message = "a template decides nothing until something links it, and nothing does: \
                           write the entity instead of `?principal` or `?resource`";
            self.report.add(&place, message.to_owned());
        }
        for (index, policy) in set.policies().enumerate() {
            if self.parsed.len() >= POLICIES_MAX {
                let message = format!(
                    "more than {POLICIES_MAX} policies: let one generic permit serve many roles"
                );
                return self.report.add(&start, message);
            }
            let place = start.at(policy.as_ref().loc().map(|loc| loc.start()));
            let default_id = PolicyId::new(format!("{}:{}", file.path, index + 1));
            self.policy(&policy.new_id(default_id), place, origin);
        }
    }

    /// Takes one policy, which bears its default id.
    fn policy(&mut self, policy: &Policy, place: Place<'a>, origin: Origin) {
        let covers_issue = slice::covers(policy, &self.model.issue);
        let can_issue = if covers_issue { CanIssue::Yes } else { CanIssue::No };
        let read = Annotations::read(policy, can_issue);
        for problem in &read.problems {
            self.report.add(&place, problem.clone());
        }
        let id = read.id.clone().unwrap_or_else(|| policy.id().to_string());
        let reserved = BUILT_IN_PREFIXES.into_iter().find(|prefix| id.starts_with(prefix));
        if let (Origin::User, Some(prefix)) = (origin, reserved) {
            let message = format!(
                "id `{id}` starts with `{prefix}`, which only the built-in policies may: choose another `@id`"
            );
            return self.report.add(&place, message);
        }
        let policy = policy.new_id(PolicyId::new(&id));
        if let Some(first) = self.by_id.get(policy.id()).and_then(|at| self.parsed.get(*at)) {
            let message = format!(
                "id `{id}` is taken by the policy at {}: choose another `@id`",
                first.place
            );
            return self.report.add(&place, message);
        }
        let guardrail = (origin == Origin::BuiltIn).then(|| Guardrail::of_id(&id)).flatten();
        let Annotations { ttl_max, max_active, reason, .. } = read;
        let deciding = Deciding { id, guardrail, ttl_max, max_active, reason };
        self.by_id.insert(policy.id().clone(), self.parsed.len());
        self.parsed.push(Parsed { policy, deciding, place });
    }
}

/// Strict validation against the schema. Warnings count as well: a policy that can never match
/// is a forbid that forbids nothing or a permit that somebody waits for, and text that looks
/// like other text deceives a reviewer.
fn validate(
    schema: &Schema,
    parsed: &[Parsed<'_>],
    by_id: &HashMap<PolicyId, usize>,
    report: &mut Report,
) {
    let set = match PolicySet::from_policies(parsed.iter().map(|p| p.policy.clone())) {
        Ok(set) => set,
        Err(error) => {
            // Cannot be, since ids are distinct; but what was not validated must not decide.
            if let Some(first) = parsed.first() {
                report.add(&first.place, format!("the policies cannot stand together: {error}"));
            }
            return;
        }
    };
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let mut add = |id: &PolicyId, diagnostic: &dyn Diagnostic| {
        if let Some(parsed) = by_id.get(id).and_then(|at| parsed.get(*at)) {
            report.add(&parsed.place.of_diagnostic(diagnostic), sentence(diagnostic));
        }
    };
    let mut told = HashSet::new();
    for error in result.validation_errors() {
        told.insert(error.policy_id());
        add(error.policy_id(), error);
    }
    for warning in result.validation_warnings() {
        let first = told.insert(warning.policy_id());
        if first || !is_consequence(warning) {
            add(warning.policy_id(), warning);
        }
    }
}

/// Whether the warning says no more than that something else is wrong, if something else is.
const fn is_consequence(warning: &ValidationWarning) -> bool {
    matches!(
        warning,
        ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_)
    )
}

/// Names that nothing answers to. Only a warning: a role whose prompt file failed to load must
/// not take all policies down with it.
fn warn_of_missing(
    parsed: &[Parsed<'_>],
    model: &Model,
    known: &KnownEntities,
) -> Vec<PolicyProblem> {
    let mut report = Report::default();
    for Parsed { policy, deciding, place } in parsed {
        let mut literals = policy.entity_literals();
        literals.sort();
        literals.dedup();
        for literal in literals {
            if let Some(why) = known.missing(model, &literal) {
                let id = &deciding.id;
                report.add(place, format!("policy `{id}` names `{literal}`, but {why}"));
            }
        }
    }
    report.into_problems()
}

/// What Cedar says, with its advice, on one line.
fn sentence(diagnostic: &dyn Diagnostic) -> String {
    let advice = diagnostic.help().map(|help| help.to_string());
    join(&diagnostic, advice.as_deref())
}

fn join(said: &dyn Display, advice: Option<&str>) -> String {
    let text = match advice {
        Some(advice) => format!("{said}: {advice}"),
        None => said.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How problems and default ids call the built-in guardrails.
const GUARDRAILS_PATH: &str = "guardrails.cedar";

/// How problems and default ids call the built-in permit of operators.
const OPERATORS_PATH: &str = "operators.cedar";

/// What the ids of built-in policies start with.
const BUILT_IN_PREFIXES: [&str; 2] = ["guardrail.", "builtin."];

/// A person can still review it; a file of this size takes about a tenth of a second to parse.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Twice what a large organisation needs; loading this many takes about a second.
const POLICIES_MAX: usize = 20_000;

/// With the bound on each file, bounds what one load can be made to read.
const FILES_MAX: usize = 1_000;
