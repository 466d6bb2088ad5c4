//! Compiles a session policy to the fewest characters, since STS counts them.

use serde_json::{Map, Value};

/// The policy as STS gets it: without blanks, lists of one as their element (which IAM reads the
/// same way), and the current `Version` if it names none. Or a sentence on what is wrong.
pub fn compile(policy: &Map<String, Value>) -> Result<String, String> {
    if !policy.contains_key("Statement") {
        return Err("has no `Statement`: write an IAM policy, or leave it out".to_owned());
    }
    let mut compiled = policy.clone();
    // An IAM policy without a version is one of 2008, in which `${aws:PrincipalTag/…}` is plain text.
    compiled.entry("Version").or_insert_with(|| VERSION.into());
    let text = shortened(Value::Object(compiled)).to_string();
    let chars = text.chars().count();
    if chars > CHARS_MAX {
        return Err(format!(
            "is {chars} characters long when compiled, and STS takes at most {CHARS_MAX}: make it \
             a managed policy and name it under `policy_arns`"
        ));
    }
    match text.chars().find(|found| !takes(*found)) {
        Some(found) => Err(format!("holds `{found}`, and STS takes Latin-1 only")),
        None => Ok(text),
    }
}

fn shortened(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().map(|(name, member)| (name, shortened(member))).collect()
        }
        Value::Array(mut items) => match (items.pop(), items.is_empty()) {
            (Some(only), true) => shortened(only),
            (last, _) => items.into_iter().chain(last).map(shortened).collect(),
        },
        scalar => scalar,
    }
}

const fn takes(found: char) -> bool {
    matches!(found, '\u{20}'..='\u{ff}')
}

const VERSION: &str = "2012-10-17";

/// What STS takes as plain text. It also packs policies and tags into a binary form with a limit
/// of its own, which only STS knows.
const CHARS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn compiled(policy: &Value) -> Result<String, String> {
        compile(policy.as_object().unwrap())
    }

    #[test]
    fn writes_the_fewest_characters_that_mean_the_same() {
        for (policy, expect) in [
            (
                serde_json::json!({ "Statement": [{ "Effect": "Allow", "Action": ["s3:GetObject"],
                    "Resource": ["arn:aws:s3:::reports/*"] }] }),
                r#"{"Statement":{"Action":"s3:GetObject","Effect":"Allow","Resource":"arn:aws:s3:::reports/*"},"Version":"2012-10-17"}"#,
            ),
            (
                serde_json::json!({ "Version": "2008-10-17", "Statement": [
                    { "Effect": "Deny", "Action": ["a:B", "a:C"], "Resource": "*",
                      "Condition": { "StringEquals": { "aws:RequestTag/x": ["1"] } } },
                    { "Effect": "Allow", "Action": "*", "Resource": "*" }] }),
                r#"{"Statement":[{"Action":["a:B","a:C"],"Condition":{"StringEquals":{"aws:RequestTag/x":"1"}},"Effect":"Deny","Resource":"*"},{"Action":"*","Effect":"Allow","Resource":"*"}],"Version":"2008-10-17"}"#,
            ),
            (serde_json::json!({ "Statement": [] }), r#"{"Statement":[],"Version":"2012-10-17"}"#),
        ] {
            let compiled = compiled(&policy).unwrap();
            assert_eq!(compiled.len(), expect.len(), "{compiled}");
            // The order of members depends on what else is built with serde_json.
            let [left, right] = [compiled.as_str(), expect].map(serde_json::from_str::<Value>);
            assert_eq!(left.unwrap(), right.unwrap());
        }
    }

    #[test]
    fn tells_what_sts_would_refuse() {
        let long = |chars: usize| serde_json::json!({ "Statement": "x".repeat(chars) });
        let frame = r#"{"Statement":"","Version":"2012-10-17"}"#.len();
        assert_eq!(compiled(&long(CHARS_MAX - frame)).unwrap().len(), CHARS_MAX);
        for (policy, sentence) in [
            (long(CHARS_MAX - frame + 1), "is 2049 characters long when compiled"),
            (serde_json::json!({ "Version": "2012-10-17" }), "has no `Statement`"),
            (serde_json::json!({ "Statement": "€" }), "holds `€`"),
        ] {
            let problem = compiled(&policy).unwrap_err();
            assert!(problem.contains(sentence), "{problem}");
        }
    }
}
