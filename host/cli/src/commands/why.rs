//! `claviger why`: what stands behind a refusal, from its entry in the journal. For operators.

use clap::Args;
use claviger_proto::v1::{JournalEntry, QueryJournalRequest};
use serde_json::{Value, json};

use super::Context;
use super::audit::{content, field, query};
use crate::client;
use crate::exit::Failure;
use crate::text::pairs;

/// Which refusal.
#[derive(Args)]
#[command(after_help = "Example:\n  claviger why den_01jd…")]
pub struct WhyArgs {
    /// `den_…`, as the refusal named it
    #[arg(value_name = "DENIAL-ID")]
    denial: String,
}

/// Looks it up and prints it.
pub async fn run(context: &Context, args: &WhyArgs) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let entry = find(context, &args.denial).await?;
    let content = content(&entry);
    if is_json {
        return context.printer.json(&json!({ "seq": entry.seq, "entry": content }));
    }
    context.printer.text(&readable(entry.seq, &content))
}

async fn find(context: &Context, denial: &str) -> Result<JournalEntry, Failure> {
    let mut client = client::admin(&context.connection).await?;
    let request =
        QueryJournalRequest { denial_id: denial.to_owned(), ..QueryJournalRequest::default() };
    let entry = query(&mut client, request).await?.message().await?;
    entry.ok_or_else(|| {
        Failure::other(format!("the journal knows no refusal `{denial}`: check the id"))
    })
}

fn readable(seq: u64, content: &Value) -> String {
    let policies: Vec<&str> = content
        .get("policies")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let (seq, policies) = (seq.to_string(), policies.join(", "));
    let all = [
        ("denial", field(content, "denial")),
        ("sentence", field(content, "detail")),
        ("code", field(content, "code")),
        ("at", field(content, "at")),
        ("role", field(content, "role")),
        ("prompt digest", field(content, "prompt_digest")),
        ("scope", field(content, "scope")),
        ("policies", policies.as_str()),
        ("snapshot", field(content, "snapshot")),
        ("session", field(content, "session")),
        ("principal", field(content, "principal")),
        ("requester", field(content, "requester")),
        ("claimed reason", field(content, "claimed_reason")),
        ("journal entry", seq.as_str()),
    ];
    let present: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    pairs(&present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_recorded_and_nothing_else() {
        let entry = json!({
            "event": "denied", "denial": "den_1", "code": "FORBIDDEN", "role": "triage",
            "policies": ["night", "weekend"], "detail": "forbidden by policy `night`",
        });
        let expect = "\
denial         den_1
sentence       forbidden by policy `night`
code           FORBIDDEN
role           triage
policies       night, weekend
journal entry  7
";
        assert_eq!(readable(7, &entry), expect);
    }
}
