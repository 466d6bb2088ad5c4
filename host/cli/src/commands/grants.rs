//! `claviger grants`: what the session may ask for, and why not the rest. Issues nothing.

use std::time::Duration;

use claviger_proto::v1::ListGrantsRequest;
use serde::Serialize;

use super::Context;
use crate::client::{self, SessionToken};
use crate::exit::Failure;
use crate::text::{Table, span};
use crate::view::GrantView;

/// The answer as JSON.
#[derive(Serialize)]
struct GrantsView {
    grants: Vec<GrantView>,
    unused_authorizations: Vec<String>,
}

/// Asks and prints.
pub async fn run(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let token = SessionToken::from_environment()?;
    let mut client = client::agent(&context.connection.agent_target()?).await?;
    let answer =
        client.list_grants(token.authorize_call(ListGrantsRequest {})?).await?.into_inner();
    let view = GrantsView {
        grants: answer.grants.into_iter().map(GrantView::from).collect(),
        unused_authorizations: answer.unused_authorizations,
    };
    if is_json {
        return context.printer.json(&view);
    }
    context.printer.table(&table(&view.grants))?;
    if !view.unused_authorizations.is_empty() {
        context.printer.note(&format!(
            "declared, but no configured scope needs: {}",
            view.unused_authorizations.join(", ")
        ));
    }
    Ok(())
}

fn table(grants: &[GrantView]) -> Table {
    let mut table = Table::new(&["SCOPE", "PERMITTED", "TTL MAX", "REVOCATION", "WHY NOT"]);
    for grant in grants {
        let ttl_max = grant.ttl_max_secs.map(|secs| span(Duration::from_secs(secs)));
        table.row([
            &grant.scope,
            if grant.permitted { "yes" } else { "no" },
            ttl_max.as_deref().unwrap_or("-"),
            &grant.revocation,
            &grant.refusal,
        ]);
    }
    table
}

/// Shown under `--help`.
pub const EXAMPLE: &str = "\
Example: the scopes that are permitted now
  claviger grants --output json | jq -r '.grants[] | select(.permitted).scope'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Bold;

    #[test]
    fn says_why_not() {
        let grant = |scope: &str, ttl_max_secs: Option<u64>| GrantView {
            scope: scope.to_owned(),
            authorization: "orders.read".to_owned(),
            permitted: ttl_max_secs.is_some(),
            ttl_max_secs,
            revocation: "revocable".to_owned(),
            refusal_code: String::new(),
            refusal: if ttl_max_secs.is_some() { "" } else { "no policy" }.to_owned(),
        };
        let text = table(&[grant("db/r", Some(1800)), grant("db/w", None)]).render(Bold::Plain);
        let expect = "\
SCOPE  PERMITTED  TTL MAX  REVOCATION  WHY NOT
db/r   yes        30m      revocable
db/w   no         -        revocable   no policy
";
        assert_eq!(text, expect);
    }
}
