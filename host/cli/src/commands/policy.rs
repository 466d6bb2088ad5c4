//! `claviger policy` and `claviger role`: what decides in a broker now, for operators.

use std::collections::BTreeMap;

use clap::Subcommand;
use claviger_proto::v1::{ListPoliciesRequest, ListRolesRequest};
use serde_json::json;

use super::Context;
use crate::client;
use crate::exit::Failure;
use crate::text::{Table, length, span, visible};

/// The commands on policies.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// The policies in force, built-in ones included, and their annotations (operators)
    #[command(after_help = "Example:\n  claviger policy list -o json | jq -r '.policies[].id'")]
    List,
}

/// The commands on roles.
#[derive(Subcommand)]
pub enum RoleCommand {
    /// The roles in force, and what is wrong with prompt files that were left out (operators)
    #[command(after_help = "Example:\n  claviger role list")]
    List,
}

/// Lists the policies.
pub async fn policies(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let answer = client.list_policies(client::call(ListPoliciesRequest {})).await?.into_inner();
    if is_json {
        let policies = answer.policies.iter().map(|policy| {
            let annotations: BTreeMap<_, _> = policy.annotations.iter().collect();
            json!({
                "id": policy.id, "place": policy.place, "effect": policy.effect,
                "annotations": annotations,
            })
        });
        let policies: Vec<_> = policies.collect();
        return context.printer.json(&json!({ "snapshot": answer.snapshot, "policies": policies }));
    }
    let mut table = Table::new(&["POLICY", "EFFECT", "PLACE", "ANNOTATIONS"]);
    for policy in &answer.policies {
        let shown = policy.annotations.iter().filter(|(name, _)| *name != "id");
        let mut shown: Vec<_> = shown.map(|(name, value)| format!("@{name}({value:?})")).collect();
        shown.sort();
        table.row([&policy.id, &policy.effect, &policy.place, &shown.join(" ")]);
    }
    context.printer.table(&table)?;
    context.printer.text(&format!("snapshot {}\n", visible(&answer.snapshot)))
}

/// Lists the roles.
pub async fn roles(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let answer = client.list_roles(client::call(ListRolesRequest {})).await?.into_inner();
    if is_json {
        let roles = answer.roles.iter().map(|role| {
            let declared = role.authorizations.iter().map(|declared| {
                let max_ttl_secs = length(declared.max_ttl).map(|ttl| ttl.as_secs());
                json!({ "name": declared.name, "max_ttl_secs": max_ttl_secs })
            });
            json!({
                "name": role.name, "prompt_digest": role.prompt_digest, "path": role.path,
                "description": role.description, "authorizations": declared.collect::<Vec<_>>(),
            })
        });
        let roles: Vec<_> = roles.collect();
        return context.printer.json(&json!({
            "snapshot": answer.snapshot, "roles": roles, "problems": answer.problems,
        }));
    }
    let mut table = Table::new(&["ROLE", "FILE", "PROMPT DIGEST", "AUTHORIZATIONS"]);
    for role in &answer.roles {
        let declared = role.authorizations.iter().map(|declared| match length(declared.max_ttl) {
            Some(ttl) => format!("{} ({})", declared.name, span(ttl)),
            None => declared.name.clone(),
        });
        let declared = declared.collect::<Vec<_>>().join(", ");
        table.row([&role.name, &role.path, &role.prompt_digest, &declared]);
    }
    context.printer.table(&table)?;
    for problem in &answer.problems {
        context.printer.text(&format!("problem: {}\n", visible(problem)))?;
    }
    Ok(())
}
