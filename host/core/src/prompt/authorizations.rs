//! The grammar of an `authorizations` list, the same in all three places where it may stand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::AuthorizationLimits;
use super::error::{Located, Position, PromptFault, shown};
use super::yaml::{Map, Node, Value};
use crate::decide::TTL_MAX;
use crate::name::Authorization;

/// What a list declares.
pub(super) type Authorizations = BTreeMap<Authorization, AuthorizationLimits>;

/// Reads a list whose items are `orders.read` or `tickets.refund: { max_ttl: 15m }`.
pub(super) fn read(list: &Node) -> Result<Authorizations, Located> {
    let Value::List(items) = &list.value else {
        let wanted = "a list, such as `[orders.read]`, or `[]` for none";
        return Err(PromptFault::Shape { what: "`authorizations`", wanted }.at(list.at));
    };
    let mut declared = Authorizations::new();
    let mut places = BTreeMap::new();
    for item in items {
        if declared.len() == AUTHORIZATIONS_MAX {
            return Err(PromptFault::TooMany.at(item.at));
        }
        let (authorization, limits) = item_of(item)?;
        if let Some(first) = places.insert(authorization.clone(), item.at) {
            return Err(PromptFault::DuplicateAuthorization { authorization, first }.at(item.at));
        }
        declared.insert(authorization, limits);
    }
    Ok(declared)
}

fn item_of(item: &Node) -> Result<(Authorization, AuthorizationLimits), Located> {
    match &item.value {
        Value::Text { text, .. } => Ok((name(text, item.at)?, AuthorizationLimits::default())),
        Value::Map(members) => {
            let mut by_place: Vec<_> = members.iter().collect();
            by_place.sort_by_key(|(_, member)| member.key_at);
            if let Some((_, second)) = by_place.get(1) {
                return Err(PromptFault::SeveralInOneItem.at(second.key_at));
            }
            let Some((text, member)) = by_place.first() else {
                return Err(not_an_item(item.at));
            };
            Ok((name(text, member.key_at)?, limits(&member.value)?))
        }
        Value::List(_) => Err(not_an_item(item.at)),
    }
}

fn limits(node: &Node) -> Result<AuthorizationLimits, Located> {
    let Value::Map(members) = &node.value else {
        let wanted = "a mapping, such as `{ max_ttl: 15m }`; without limits, leave out the colon";
        return Err(PromptFault::Shape { what: "what limits an authorization", wanted }.at(node.at));
    };
    only_known(members, &["max_ttl"], "an authorization has only the limit `max_ttl`")?;
    let ttl_max = members.get("max_ttl").map(|member| ttl(&member.value)).transpose()?;
    Ok(AuthorizationLimits { ttl_max })
}

/// Refuses the first key, in the order of the file, that is not one of `keys`.
pub(super) fn only_known(members: &Map, keys: &[&str], known: &'static str) -> Result<(), Located> {
    let unknown = members
        .iter()
        .filter(|(key, _)| !keys.contains(&key.as_str()))
        .min_by_key(|(_, member)| member.key_at);
    match unknown {
        Some((key, member)) => {
            Err(PromptFault::UnknownKey { key: shown(key), known }.at(member.key_at))
        }
        None => Ok(()),
    }
}

fn ttl(node: &Node) -> Result<Duration, Located> {
    let Value::Text { text, .. } = &node.value else {
        let wanted = "a span of time, such as `15m`";
        return Err(PromptFault::Shape { what: "`max_ttl`", wanted }.at(node.at));
    };
    humantime::parse_duration(text)
        .ok()
        .filter(|ttl| (TTL_LEAST..=TTL_MAX).contains(ttl))
        .ok_or_else(|| PromptFault::Ttl { text: shown(text) }.at(node.at))
}

fn name(text: &str, at: Position) -> Result<Authorization, Located> {
    text.parse().map_err(|error| PromptFault::Authorization(error).at(at))
}

fn not_an_item(at: Position) -> Located {
    let wanted = "an authorization, such as `orders.read`";
    PromptFault::Shape { what: "each item", wanted }.at(at)
}

/// Enough for a role that touches everything, and a bound on what each decision must look
/// through: Cedar receives the set with every question.
pub const AUTHORIZATIONS_MAX: usize = 256;

/// Zero would forbid what the line declares; lives are counted in whole seconds.
const TTL_LEAST: Duration = Duration::from_secs(1);
