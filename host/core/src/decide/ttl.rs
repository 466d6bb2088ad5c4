//! Settles how long a credential may live: every limit that applies, applies; the smallest wins.

use std::fmt;
use std::time::Duration;

use super::DenialReason;
use crate::catalog::{Backend, Scope};
use crate::policy::Deciding;
use crate::prompt::AuthorizationLimits;

/// One limit on a credential's life and who set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TtlLimit {
    /// The most it allows.
    pub most: Duration,
    /// Who set it.
    pub source: LimitSource,
}

/// Who set a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// The cap that no configuration can lift.
    HardCap,
    /// `max_ttl` of the scope in the configuration.
    Scope,
    /// `max_ttl` beside the authorization in the prompt file.
    PromptFile,
    /// `@max_ttl` of this policy.
    Policy(String),
    /// The plugin's `orphan-ttl-secs-max`.
    Plugin,
    /// The session's own end.
    SessionEnd,
}

impl fmt::Display for LimitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HardCap => f.write_str("the cap that no configuration can lift"),
            Self::Scope => f.write_str("`max_ttl` of the scope"),
            Self::PromptFile => f.write_str("`max_ttl` in the prompt file"),
            Self::Policy(id) => write!(f, "`@max_ttl` of policy `{id}`"),
            Self::Plugin => f.write_str("the plugin, whose upstream objects cannot be tagged"),
            Self::SessionEnd => f.write_str("the end of the session"),
        }
    }
}

/// Every limit that applies. A deciding permit without `@max_ttl` sets none; of several with
/// one, each counts, so adding a permit can never lengthen what another one limits.
pub(super) fn limits(
    backend: &Backend,
    scope: &Scope,
    declared: Option<&AuthorizationLimits>,
    permits: &[Deciding],
) -> Vec<TtlLimit> {
    let fixed = [
        (Some(TTL_MAX), LimitSource::HardCap),
        (Some(scope.ttl_max), LimitSource::Scope),
        (declared.and_then(|d| d.ttl_max), LimitSource::PromptFile),
        (backend.orphan_ttl_max, LimitSource::Plugin),
    ];
    let from_policies =
        permits.iter().map(|permit| (permit.ttl_max, LimitSource::Policy(permit.id.clone())));
    fixed
        .into_iter()
        .chain(from_policies)
        .filter_map(|(most, source)| Some(TtlLimit { most: most?, source }))
        .collect()
}

/// The most that every limit allows.
pub(super) fn most(limits: &[TtlLimit]) -> Duration {
    limits.iter().map(|limit| limit.most).min().unwrap_or(TTL_MAX)
}

fn tightest(limits: &[TtlLimit]) -> TtlLimit {
    let hard_cap = || TtlLimit { most: TTL_MAX, source: LimitSource::HardCap };
    limits.iter().min_by_key(|limit| limit.most).cloned().unwrap_or_else(hard_cap)
}

/// Refuses a life above a limit, and names the tightest.
pub(super) fn within(life: Duration, limits: &[TtlLimit]) -> Result<(), DenialReason> {
    let limit = tightest(limits);
    if life > limit.most {
        return Err(DenialReason::TtlTooLong { asked: life, limit });
    }
    Ok(())
}

/// The life to grant. An explicit wish above a limit is refused, so that the agent learns of the
/// limit; the default shrinks to fit. The session's end shortens both: nothing outlives it.
pub(super) fn settle(
    asked: Option<Duration>,
    limits: &[TtlLimit],
    least: Duration,
    session_left: Duration,
) -> Result<Duration, DenialReason> {
    let tightest = tightest(limits);
    if let Some(asked) = asked {
        within(asked, limits)?;
    }
    let wish = asked.unwrap_or(TTL_DEFAULT).min(tightest.most);
    let ttl = wish.min(session_left);
    if ttl < least {
        let source = if ttl < wish { LimitSource::SessionEnd } else { tightest.source };
        let limited = (asked.is_none() || ttl < wish).then_some(TtlLimit { most: ttl, source });
        return Err(DenialReason::TtlTooShort { got: ttl, least, limited });
    }
    Ok(ttl)
}

/// The default life of a credential.
pub const TTL_DEFAULT: Duration = Duration::from_hours(1);

/// No credential lives longer, whatever is configured: hours at most is the promise. It equals
/// the longest life that AWS STS gives.
pub const TTL_MAX: Duration = Duration::from_hours(12);

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(mins: u64) -> TtlLimit {
        TtlLimit { most: Duration::from_mins(mins), source: LimitSource::Scope }
    }

    fn check(
        asked_mins: Option<u64>,
        limit_mins: &[u64],
        session_left_mins: u64,
    ) -> Result<u64, DenialReason> {
        let limits: Vec<_> = limit_mins.iter().map(|mins| limit(*mins)).collect();
        let asked = asked_mins.map(Duration::from_mins);
        settle(asked, &limits, Duration::from_mins(5), Duration::from_mins(session_left_mins))
            .map(|ttl| ttl.as_secs() / 60)
    }

    #[test]
    fn the_smallest_limit_wins_and_the_default_shrinks() {
        assert_eq!(check(None, &[], 600), Ok(60));
        assert_eq!(check(None, &[30, 45], 600), Ok(30));
        assert_eq!(check(Some(45), &[60], 600), Ok(45));
    }

    #[test]
    fn the_session_end_shortens_every_wish() {
        assert_eq!(check(Some(45), &[60], 10), Ok(10));
        assert_eq!(check(None, &[60], 10), Ok(10));
    }

    #[test]
    fn refuses_a_wish_above_a_limit_and_says_which() {
        let refused = check(Some(61), &[90, 60], 600);
        assert!(
            matches!(refused, Err(DenialReason::TtlTooLong { limit, .. }) if limit.most == Duration::from_mins(60))
        );
    }

    #[test]
    fn refuses_what_the_upstream_cannot_make_so_short() {
        assert!(matches!(
            check(Some(4), &[], 600),
            Err(DenialReason::TtlTooShort { limited: None, .. })
        ));
        assert!(matches!(
            check(None, &[4], 600),
            Err(DenialReason::TtlTooShort { limited: Some(_), .. })
        ));
        assert!(matches!(
            check(None, &[], 4),
            Err(DenialReason::TtlTooShort { limited: Some(_), .. })
        ));
    }
}
