//! What may stand in one place only: where permits, intents and secrets come and go, where proto
//! types are known and gRPC statuses made (STYLE.md, rules 5 and 14; the invariants of
//! ARCHITECTURE.md).

use crate::Finding;
use crate::source::Source;

/// What stands in the wrong place in `source`.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        if (rule.allowed)(&source.path) {
            continue;
        }
        for (line, before) in rule.tokens.iter().flat_map(|tokens| source.runs(tokens)) {
            let made = !rule.harmless_after.contains(&before);
            let tested = rule.in_tests && source.is_test(line);
            if made && !tested {
                findings.push(Finding::new(&source.path, line, rule.sentence));
            }
        }
    }
    findings.extend(statuses(source));
    findings.extend(proto_types(source));
    findings
}

/// More than one host file with `bindgen!`.
pub fn one_bindgen(sources: &[Source]) -> Vec<Finding> {
    let host = sources.iter().filter(|source| source.path.starts_with("host/"));
    let calls: Vec<_> = host
        .flat_map(|source| {
            source.runs(&["bindgen", "!"]).map(|(line, _)| (source.path.as_str(), line))
        })
        .collect();
    let mut files: Vec<_> = calls.iter().map(|(path, _)| *path).collect();
    files.dedup();
    if files.len() < 2 {
        return Vec::new();
    }
    calls
        .iter()
        .map(|(path, line)| Finding::new(path, *line, format!("{BINDGEN}: {}", files.join(", "))))
        .collect()
}

/// gRPC statuses made outside the one file. A bench has a server of its own, which is no broker.
fn statuses(source: &Source) -> Vec<Finding> {
    if source.path == STATUS_FILE || source.path.starts_with("host/broker/benches/") {
        return Vec::new();
    }
    STATUS_CONSTRUCTORS
        .iter()
        .flat_map(|name| {
            let wanted = ["Status", ":", ":", name, "("];
            let lines: Vec<_> = source.runs(&wanted).map(|(line, _)| line).collect();
            lines
        })
        .filter(|line| !source.is_test(*line))
        .map(|line| Finding::new(&source.path, line, STATUS))
        .collect()
}

/// Proto types that the broker knows outside `rpc`. The listeners may name the services, to mount
/// them, and the descriptors, to serve them; no message.
fn proto_types(source: &Source) -> Vec<Finding> {
    let in_rpc = source.path.starts_with("host/broker/src/rpc");
    if in_rpc || !source.path.starts_with("host/broker/src/") {
        return Vec::new();
    }
    let lines = |wanted: &'static [&'static str]| source.runs(wanted).map(|(line, _)| line);
    let mounted: Vec<_> = if source.path == SERVE_FILE {
        MOUNTED.iter().flat_map(|wanted| lines(wanted)).collect()
    } else {
        Vec::new()
    };
    let named = lines(&["claviger_proto"]).chain(lines(&["prost_types"]));
    named
        .filter(|line| !mounted.contains(line))
        .map(|line| Finding::new(&source.path, line, PROTO))
        .collect()
}

fn in_decision_module(path: &str) -> bool {
    path == "host/core/src/decide.rs" || path.starts_with("host/core/src/decide/")
}

struct Rule {
    tokens: &'static [&'static [&'static str]],
    allowed: fn(&str) -> bool,
    /// Whether tests may do it too.
    in_tests: bool,
    /// Tokens after which it is a declaration, or another type of the same name.
    harmless_after: &'static [&'static str],
    sentence: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        tokens: &[&["Permit", ":", ":", "granted"], &["SessionPermit", ":", ":", "granted"]],
        allowed: in_decision_module,
        in_tests: false,
        harmless_after: &[],
        sentence: PERMIT,
    },
    Rule {
        tokens: &[&["Permit", "{"], &["SessionPermit", "{"]],
        allowed: in_decision_module,
        in_tests: false,
        harmless_after: &["struct", "impl", "for", "enum", ">", ":"],
        sentence: PERMIT,
    },
    Rule {
        tokens: &[&["Intent", ":", ":", "recorded"]],
        allowed: |path| path.starts_with("host/core/src/"),
        in_tests: false,
        harmless_after: &[],
        sentence: "an intent is made outside the core, so that a plugin could run without a \
                   record: call `flow::issue` (invariant 2)",
    },
    Rule {
        tokens: &[&["claimed_reason"]],
        allowed: |path| !path.starts_with("host/core/src/policy"),
        in_tests: false,
        harmless_after: &[],
        sentence: "the policies get to know what an agent only claims, so that a sentence which \
                   anybody can write into a prompt could decide: let a proof decide (invariant 5)",
    },
    Rule {
        tokens: &[&[".", "expose_once", "("], &["Secret", ":", ":", "expose_once"]],
        allowed: |path| path == EXPOSE_FILE,
        in_tests: true,
        harmless_after: &[],
        sentence: "a secret is exposed outside host/broker/src/rpc/reply.rs, and every further \
                   exit is one more place from which it can leak: pass the `Secret` on",
    },
    Rule {
        tokens: &[
            &["unsafe", "{"],
            &["unsafe", "fn"],
            &["unsafe", "impl"],
            &["allow", "(", "unsafe_code"],
            &["expect", "(", "unsafe_code"],
        ],
        // What runs inside the sandbox may do what it likes with its own memory.
        allowed: |path| path == UNSAFE_FILE || !path.starts_with("host/"),
        in_tests: false,
        harmless_after: &[],
        sentence: "`unsafe` stands in the host outside plugin/artifact.rs, so that the compiler \
                   no longer vouches for the memory of the broker: find a safe way, or add a small \
                   module with the safety argument to the list of the tidy test",
    },
    Rule {
        tokens: &[
            &["SystemTime", ":", ":", "now"],
            &["Instant", ":", ":", "now"],
            &["std", ":", ":", "fs"],
            &["std", ":", ":", "net"],
            &["std", ":", ":", "env"],
            &["std", ":", ":", "process"],
            &["std", ":", ":", "thread"],
        ],
        allowed: |path| !path.starts_with("host/core/src/"),
        in_tests: true,
        harmless_after: &[],
        sentence: "the core reads a clock or does I/O, so that its decisions could no longer be \
                   replayed: take the value as a parameter or through a port (invariant 1)",
    },
];

const PERMIT: &str = "a permit is made outside the decision module, so that something could be \
                      permitted that no policy decided: call `decide` (invariant 2)";

/// The one file that may expose a secret: it builds the replies to the agent.
const EXPOSE_FILE: &str = "host/broker/src/rpc/reply.rs";

/// The one file that may say `unsafe`: it loads the machine code of plugins.
const UNSAFE_FILE: &str = "host/broker/src/plugin/artifact.rs";

/// The one file that may make a gRPC status: it turns every error into one, without a wildcard.
const STATUS_FILE: &str = "host/broker/src/rpc/status.rs";

/// The one file outside `rpc` that names services, since it mounts them.
const SERVE_FILE: &str = "host/broker/src/serve.rs";

/// What it names: each service by its server, and the descriptors.
const MOUNTED: [&[&str]; 4] = [
    &["claviger_proto", ":", ":", "DESCRIPTORS"],
    &["claviger_proto", ":", ":", "v1", ":", ":", "agent_service_server"],
    &["claviger_proto", ":", ":", "v1", ":", ":", "admin_service_server"],
    &["claviger_proto", ":", ":", "v1", ":", ":", "secret_service_server"],
];

const PROTO: &str = "a proto type is known outside host/broker/src/rpc, so that the contract with \
                     the agents could no longer change without the rest of the broker: convert it \
                     there, and pass on a type of our own (invariant 11)";

const STATUS: &str = "a gRPC status is made outside host/broker/src/rpc/status.rs, so that codes \
                      and reasons drift apart: return an error and map it there";

const BINDGEN: &str = "`bindgen!` stands in several files, so that two sets of types exist for one \
                       contract: keep one module and re-export from it";

/// tonic's and tonic-types' ways to make a status.
const STATUS_CONSTRUCTORS: [&str; 25] = [
    "new",
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
    "with_details",
    "with_metadata",
    "with_details_and_metadata",
    "with_error_details",
    "with_error_details_and_metadata",
    "with_error_details_vec",
    "from_error",
];
