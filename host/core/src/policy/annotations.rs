//! Reads what the annotations of one policy say. An annotation that is not understood is refused:
//! most of them are limits, and a limit that is silently ignored is none.

use std::num::NonZeroU32;
use std::time::Duration;

use cedar_policy::{Effect, Policy};

use crate::decide::TTL_MAX;

/// What the annotations say, and what is wrong with them.
#[derive(Default)]
pub(super) struct Annotations {
    pub(super) id: Option<String>,
    pub(super) ttl_max: Option<Duration>,
    pub(super) max_active: Option<NonZeroU32>,
    pub(super) reason: Option<String>,
    pub(super) problems: Vec<String>,
}

impl Annotations {
    /// Reads them. `can_issue` tells whether the policy applies to `Action::"issue"`.
    pub(super) fn read(policy: &Policy, can_issue: CanIssue) -> Self {
        let mut read = Self::default();
        for (name, value) in policy.annotations() {
            let problem = match name {
                "id" => id(value).map(|id| read.id = Some(id)),
                "max_ttl" => max_ttl(policy.effect(), can_issue, value)
                    .map(|ttl_max| read.ttl_max = Some(ttl_max)),
                "reason" => reason(policy.effect(), value).map(|reason| read.reason = Some(reason)),
                "max_active" => max_active(policy.effect(), can_issue, value)
                    .map(|max_active| read.max_active = Some(max_active)),
                "approval" => Err(format!(
                    "`@{name}` is not supported yet, and without it this policy would allow more \
                     than it says: remove the policy until it is"
                )),
                _ => Err(format!(
                    "annotation `@{name}` is not known: the known ones are `@id`, `@max_ttl`, `@max_active` and `@reason`"
                )),
            };
            read.problems.extend(problem.err());
        }
        read
    }
}

/// Whether a policy applies to `Action::"issue"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CanIssue {
    Yes,
    No,
}

fn id(value: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if value.is_empty() || value.len() > ID_CHARS_MAX || !value.chars().all(plain) {
        return Err(format!(
            "`@id(\"{}\")` cannot be an id: it takes 1 to {ID_CHARS_MAX} letters, digits and `._-/:`",
            clip(value)
        ));
    }
    Ok(value.to_owned())
}

fn max_ttl(effect: Effect, can_issue: CanIssue, value: &str) -> Result<Duration, String> {
    if effect == Effect::Forbid {
        return Err("`@max_ttl` limits what a permit allows, but this is a forbid: \
                    compare `context.ttl_secs` in its condition instead"
            .to_owned());
    }
    if can_issue == CanIssue::No {
        return Err("`@max_ttl` limits credentials, but this permit does not apply to \
                    `Action::\"issue\"`: for a session, compare `context.life_secs`"
            .to_owned());
    }
    let refused = || {
        format!(
            "`@max_ttl(\"{}\")` is not a duration between 1s and {}: write one such as \"30m\" or \"1h 30m\"",
            clip(value),
            humantime::format_duration(TTL_MAX)
        )
    };
    let ttl_max = humantime::parse_duration(value).map_err(|_| refused())?;
    if ttl_max > TTL_MAX || ttl_max < TTL_MIN || ttl_max.subsec_nanos() > 0 {
        return Err(refused());
    }
    Ok(ttl_max)
}

fn max_active(effect: Effect, can_issue: CanIssue, value: &str) -> Result<NonZeroU32, String> {
    if effect == Effect::Forbid {
        return Err("`@max_active` limits what a permit allows, but this is a forbid: \
                    write it on the permit"
            .to_owned());
    }
    if can_issue == CanIssue::No {
        return Err("`@max_active` limits credentials, but this permit does not apply to \
                    `Action::\"issue\"`: sessions have `live_max` in the configuration"
            .to_owned());
    }
    // Nothing but digits: `+1` and ` 1` are not how people write a limit.
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let number = value.parse().ok().filter(|_| plain);
    number.filter(|number: &NonZeroU32| number.get() <= MAX_ACTIVE_MAX).ok_or_else(|| {
        format!(
            "`@max_active(\"{}\")` is not a number between 1 and {MAX_ACTIVE_MAX}: to allow none, write a forbid",
            clip(value)
        )
    })
}

fn reason(effect: Effect, value: &str) -> Result<String, String> {
    if effect != Effect::Forbid {
        return Err("`@reason` is the sentence of a refusal, but this is a permit: \
                    write a comment instead"
            .to_owned());
    }
    let chars = value.chars().count();
    if chars == 0 || chars > REASON_CHARS_MAX || value.chars().any(char::is_control) {
        return Err(format!(
            "`@reason` takes one line of 1 to {REASON_CHARS_MAX} characters: say what the agent can do instead"
        ));
    }
    Ok(value.to_owned())
}

fn clip(value: &str) -> String {
    value.chars().take(ID_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Long enough for `team/area/purpose`, short enough for a log line.
const ID_CHARS_MAX: usize = 128;

/// Three sentences. The agent reads it, so every character costs tokens.
const REASON_CHARS_MAX: usize = 400;

/// Far above what one role holds of one scope; a longer number is a slip of the finger.
const MAX_ACTIVE_MAX: u32 = 1_000_000;

/// Cedar sees whole seconds.
const TTL_MIN: Duration = Duration::from_secs(1);
