//! Who acts for the requester (RFC 8693, sections 4.1 and 4.4): the claims `act` and `may_act` of a
//! verified token. Who may be trusted with what is for policies to say.

use serde_json::{Map, Value};

use super::claims::is_plain;
use super::error::TokenError;

/// Somebody whom a verified token names as an actor, not yet compared with who sent it.
pub struct UnverifiedActor<'a> {
    /// The issuer that knows it, if that is another than the token's.
    pub issuer: Option<&'a str>,
    /// Its subject there.
    pub subject: &'a str,
}

/// The actors that `claims` name, the current one first. It must be the one that sent the token,
/// and so must who `may_act` where nobody acts yet. Empty for a token without either.
pub fn chain(
    claims: &Map<String, Value>,
    is_sender: impl Fn(&UnverifiedActor<'_>) -> bool,
) -> Result<Vec<String>, TokenError> {
    let mut act = Vec::new();
    let mut next = claims.get("act");
    if next.is_none()
        && let Some(may_act) = claims.get("may_act")
        && !is_sender(&actor(may_act)?)
    {
        return Err(TokenError::OtherActor);
    }
    while let Some(named) = next {
        if act.len() == DEPTH_MAX {
            return Err(MALFORMED);
        }
        let actor = actor(named)?;
        // Only the outermost is who acts now; those within tell how it came to that.
        if act.is_empty() && !is_sender(&actor) {
            return Err(TokenError::OtherActor);
        }
        act.push(match actor.issuer {
            Some(issuer) => format!("{issuer}#{}", actor.subject),
            None => actor.subject.to_owned(),
        });
        next = named.get("act");
    }
    Ok(act)
}

fn actor(value: &Value) -> Result<UnverifiedActor<'_>, TokenError> {
    let text = |name: &str| match value.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_plain(text) => Ok(Some(text.as_str())),
        Some(_) => Err(MALFORMED),
    };
    let subject = text("sub")?.ok_or(MALFORMED)?;
    Ok(UnverifiedActor { issuer: text("iss")?, subject })
}

const MALFORMED: TokenError = TokenError::Act(DEPTH_MAX);

/// An orchestrator, its agent, a sub-agent, a tool: twice that is more than anybody follows.
const DEPTH_MAX: usize = 8;
