//! What STS documents about the parameters of its two operations, and moto lets pass. Read in the
//! API reference, except for the packed size, whose formula AWS keeps to itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Refusal;

type Fields = BTreeMap<String, String>;

/// Whether a request says what it may say.
pub fn check(fields: &Fields) -> Result<(), Refusal> {
    let operation = field(fields, "Action");
    if !["AssumeRole", "AssumeRoleWithWebIdentity"].contains(&operation) {
        return Err(Refusal::sender(
            "InvalidAction",
            format!("Could not find operation {operation}"),
        ));
    }
    known_parameters(fields, operation)?;
    name(fields, "RoleSessionName")?;
    if fields.contains_key("SourceIdentity") {
        name(fields, "SourceIdentity")?;
    }
    duration(field(fields, "DurationSeconds"))?;
    tags(fields)?;
    policy(fields)
}

/// Whether a web identity token names tags and source identity as they must be.
pub fn check_claims(claims: &Value) -> Result<(), Refusal> {
    let mut fields = Fields::new();
    let source = &claims["https://aws.amazon.com/source_identity"];
    fields.insert("SourceIdentity".to_owned(), source.as_str().unwrap_or_default().to_owned());
    let tags = claims["https://aws.amazon.com/tags"]["principal_tags"].as_object();
    for (n, (key, values)) in (1..).zip(tags.into_iter().flatten()) {
        // One value each, in a list.
        let value = values[0].as_str().unwrap_or_default().to_owned();
        fields.insert(format!("Tags.member.{n}.Key"), key.clone());
        fields.insert(format!("Tags.member.{n}.Value"), value);
    }
    name(&fields, "SourceIdentity")?;
    self::tags(&fields)
}

/// AWS ignores what it does not know; the double does not, so that nothing is sent in vain.
fn known_parameters(fields: &Fields, operation: &str) -> Result<(), Refusal> {
    let both = ["Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "Policy"];
    let of_keys = ["ExternalId", "SourceIdentity", "Tags", "TransitiveTagKeys"];
    for found in fields.keys() {
        let base = found.split('.').next().unwrap_or_default();
        let known = both.contains(&base)
            || base == "PolicyArns"
            || (operation == "AssumeRole" && of_keys.contains(&base));
        if !known {
            let message = format!("{operation} takes no parameter {found}");
            return Err(Refusal::sender("UnexpectedParameter", message));
        }
    }
    Ok(())
}

fn name(fields: &Fields, parameter: &str) -> Result<(), Refusal> {
    let value = field(fields, parameter);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&value.len()) || !value.chars().all(allowed) || value.starts_with("aws:")
    {
        return Err(invalid(parameter, value, "satisfy regular expression pattern: [\\w+=,.@-]*"));
    }
    Ok(())
}

fn duration(text: &str) -> Result<(), Refusal> {
    let secs: u64 = text.parse().map_err(|_| invalid("durationSeconds", text, "be a number"))?;
    match secs {
        0..900 => Err(invalid("durationSeconds", text, "have value greater than or equal to 900")),
        900..=MAX_SESSION_DURATION_SECS => Ok(()),
        43_201.. => Err(invalid("durationSeconds", text, "have value less than or equal to 43200")),
        _ => {
            let message =
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
            Err(Refusal::sender("ValidationError", message))
        }
    }
}

fn tags(fields: &Fields) -> Result<(), Refusal> {
    let values = |suffix: &str| {
        let members = fields
            .iter()
            .filter(|(name, _)| name.starts_with("Tags.member.") && name.ends_with(suffix));
        members.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let (keys, texts) = (values(".Key"), values(".Value"));
    let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    for (text, chars_max) in keys.iter().map(|key| (key, 128)).chain(texts.iter().map(|t| (t, 256)))
    {
        if text.chars().count() > chars_max || !text.chars().all(allowed) {
            return Err(invalid(
                "tags",
                text,
                "satisfy regular expression pattern: [\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*",
            ));
        }
    }
    let distinct: BTreeSet<_> = keys.iter().map(|key| key.to_ascii_lowercase()).collect();
    let reserved = keys.iter().any(|key| key.to_ascii_lowercase().starts_with("aws:"));
    if keys.len() != texts.len() || keys.len() > 50 || distinct.len() != keys.len() || reserved {
        return Err(Refusal::sender("InvalidParameterValue", "Tags are invalid."));
    }
    let transitive =
        fields.iter().filter(|(name, _)| name.starts_with("TransitiveTagKeys.member."));
    for (_, key) in transitive {
        if !keys.contains(&key.as_str()) {
            let message =
                "The specified transitive tag key must be included in the requested tags.";
            return Err(Refusal::sender("InvalidParameterValue", message));
        }
    }
    Ok(())
}

fn policy(fields: &Fields) -> Result<(), Refusal> {
    let text = field(fields, "Policy");
    if text.chars().count() > 2048 {
        return Err(invalid("policy", "…", "have length less than or equal to 2048"));
    }
    let read: Result<serde_json::Value, _> = serde_json::from_str(text);
    if !text.is_empty() && !read.is_ok_and(|policy| policy.get("Statement").is_some()) {
        return Err(Refusal::sender("MalformedPolicyDocument", "Syntax errors in policy."));
    }
    let tags = fields.iter().filter(|(name, _)| name.starts_with("Tags.member."));
    let tag_chars: usize = tags.map(|(_, value)| value.chars().count()).sum();
    let percent = (text.chars().count() + tag_chars) * 100 / PACKED_CHARS_MAX;
    if percent > 100 {
        let message = format!(
            "Packed size of session policy and tags consumes {percent}% of allotted space."
        );
        return Err(Refusal::sender("PackedPolicyTooLarge", message));
    }
    Ok(())
}

fn field<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).map(String::as_str).unwrap_or_default()
}

fn invalid(parameter: &str, value: &str, constraint: &str) -> Refusal {
    let message = format!(
        "1 validation error detected: Value '{value}' at '{parameter}' failed to satisfy constraint: Member must {constraint}"
    );
    Refusal::sender("ValidationError", message)
}

/// Of every role behind the double: four hours, so that there is something between it and the 12
/// hours that STS gives at most.
const MAX_SESSION_DURATION_SECS: u64 = 4 * 3600;

/// A stand-in for the packed size: a policy that just fits as plain text does not fit with tags.
const PACKED_CHARS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a good request with these fields changed; an empty value takes one out.
    fn check_with(changes: &[(&str, &str)]) -> Result<(), String> {
        let good = [
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", "arn:aws:iam::123456789012:role/reports"),
            ("RoleSessionName", "session.alice"),
            ("DurationSeconds", "900"),
            ("Tags.member.1.Key", "claviger:role"),
            ("Tags.member.1.Value", "report builder"),
            ("TransitiveTagKeys.member.1", "claviger:role"),
        ];
        let fields = good.iter().chain(changes);
        let mut fields: Fields =
            fields.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields.retain(|_, value| !value.is_empty());
        check(&fields).map_err(|refusal| format!("{}: {}", refusal.code, refusal.message))
    }

    #[test]
    fn refuses_what_sts_refuses() {
        let (long, longer) = ("x".repeat(64), "x".repeat(65));
        let policy = |chars: usize| format!(r#"{{"Statement":"{}"}}"#, "x".repeat(chars));
        let (fits, packed, plain) = (policy(1_900), policy(2_030), policy(2_040));
        let web = ("Action", "AssumeRoleWithWebIdentity");
        for (changes, sentence) in [
            (&[][..], ""),
            (&[("DurationSeconds", "14400")], ""),
            (&[("DurationSeconds", "899")], "greater than or equal to 900"),
            (&[("DurationSeconds", "14401")], "exceeds the MaxSessionDuration"),
            (&[("DurationSeconds", "43201")], "less than or equal to 43200"),
            (&[("RoleSessionName", &long)], ""),
            (&[("RoleSessionName", &longer)], "'RoleSessionName'"),
            (&[("RoleSessionName", "x")], "'RoleSessionName'"),
            (&[("RoleSessionName", "unix:1000")], "'RoleSessionName'"),
            (&[("SourceIdentity", "unix/1000")], "'SourceIdentity'"),
            (&[("Tags.member.1.Value", "a;b")], "at 'tags'"),
            (&[("Tags.member.2.Key", "Claviger:Role"), ("Tags.member.2.Value", "x")], "Tags are"),
            (&[("Tags.member.1.Key", "aws:x")], "Tags are"),
            (&[("TransitiveTagKeys.member.1", "other")], "transitive tag key"),
            (&[("Policy", &fits)], ""),
            (&[("Policy", &packed)], "PackedPolicyTooLarge"),
            (&[("Policy", &plain)], "less than or equal to 2048"),
            (&[("Policy", "{}")], "MalformedPolicyDocument"),
            (&[("Policy", "{")], "MalformedPolicyDocument"),
            (&[web], "takes no parameter Tags.member.1.Key"),
            (&[("Action", "GetSessionToken")], "InvalidAction"),
        ] {
            let refused = check_with(changes).err().unwrap_or_default();
            let expected =
                if sentence.is_empty() { refused.is_empty() } else { refused.contains(sentence) };
            assert!(expected, "{changes:?}: {refused}");
        }
    }
}
