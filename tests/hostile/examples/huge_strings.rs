//! Attacks the host's memory and the operator's screen with text: megabytes into host functions,
//! and out of them as errors and as problems of a configuration. What one call may carry bounds
//! each of them, and what is kept is cut.

use claviger_hostile::Ignored;
use claviger_plugin_sdk::{Config, Error, ErrorKind, Issue, Lease, Problem, Provider, Revoke, log};

struct HugeStrings;

claviger_plugin_sdk::export!(HugeStrings, manifest = "plain.json");

impl Provider for HugeStrings {
    type Settings = Ignored;
    type Parameters = Ignored;

    fn validate(config: &Config<Ignored, Ignored>) -> Vec<Problem> {
        let bytes = config.settings.get("problem-bytes").and_then(|bytes| bytes.parse().ok());
        let count = config.settings.get("problems").and_then(|count| count.parse().ok());
        let problem = |_| Problem {
            pointer: "/settings\u{1b}[2J\nERROR forged".to_owned(),
            message: "x".repeat(bytes.unwrap_or_default()),
        };
        (0..count.unwrap_or(0)).map(problem).collect()
    }

    fn issue(request: &Issue<Ignored, Ignored>, lease: &Lease) -> Result<(), Error> {
        let parameter = |name: &str| request.parameters.get(name).map(String::as_str);
        let bytes = parameter("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        let text = "x".repeat(bytes);
        match parameter("into") {
            Some("log") => log::info(&text, &[]),
            Some("fields") => log::info("fields", &[("a", &text), ("b", &text)]),
            Some("lease") => lease.set_field("report", &text)?,
            Some("handle") => lease.set_handle(&text)?,
            Some("error") => {
                let mut error = Error::new(ErrorKind::Other, text.clone());
                error.code = Some(text);
                return Err(error);
            }
            _ => {}
        }
        lease.set_field("report", "carried")
    }

    fn revoke(_: &Revoke<Ignored>) -> Result<(), Error> {
        Ok(())
    }
}
