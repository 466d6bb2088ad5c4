//! Holds a session's heartbeat: keeps a Watch stream open, over broken connections and restarts
//! of the broker, until the session is over. Prints nothing.

use std::time::Duration;

use claviger_proto::v1::agent_service_client::AgentServiceClient;
use claviger_proto::v1::watch_response::Event;
use claviger_proto::v1::{WatchRequest, WatchResponse};
use serde::Serialize;
use tonic::transport::Channel;

use crate::client::SessionToken;
use crate::exit::{Exit, Failure};
use crate::text::moment;
use crate::view::state;

/// One piece of news about a session.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum News {
    /// The session lives.
    Heartbeat {
        /// RFC 3339.
        at: String,
    },
    /// A lease ends soon; leases are never extended.
    LeaseExpiring {
        /// `int_…`.
        lease_id: String,
        /// RFC 3339.
        expires_at: String,
    },
    /// A lease fell due or reached a final state.
    LeaseChanged {
        /// `int_…`.
        lease_id: String,
        /// `due`, `revoked` …
        state: String,
        /// Why.
        cause: String,
        /// What refuses it now, if that is why.
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The stable code of that refusal.
        #[serde(skip_serializing_if = "String::is_empty")]
        code: String,
    },
    /// The session ends, or (`draining`) the broker restarts.
    SessionEnding {
        /// `closed`, `life-reached`, `heartbeat-lost`, `operator`, `no-longer-permitted`,
        /// `draining`.
        cause: String,
        /// What refuses it now, if that is why.
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The stable code of that refusal.
        #[serde(skip_serializing_if = "String::is_empty")]
        code: String,
    },
    /// The stream broke; it is being opened again.
    Interrupted {
        /// Why.
        error: String,
    },
}

/// Watches until the session is over, and returns why it ended. Fails when the broker stays away
/// for longer than any session would survive.
pub async fn hold(
    mut client: AgentServiceClient<Channel>,
    token: &SessionToken,
    mut tell: impl FnMut(&News),
) -> Result<String, Failure> {
    let mut failures = 0;
    loop {
        let failure = match stream(&mut client, token, &mut tell, &mut failures).await {
            Ok(Some(cause)) => return Ok(cause),
            Ok(None) => Failure::new(Exit::UNREACHABLE, "the broker restarts"),
            Err(failure) if failure.exit == Exit::UNREACHABLE => failure,
            Err(failure) => return Err(failure),
        };
        failures += 1;
        if failures > RETRIES_MAX {
            return Err(failure);
        }
        tell(&News::Interrupted { error: failure.sentence });
        tokio::time::sleep(pause(failures)).await;
    }
}

/// Reads one stream to its end. `Some(cause)` if the session ended, `None` if only the stream did.
async fn stream(
    client: &mut AgentServiceClient<Channel>,
    token: &SessionToken,
    tell: &mut impl FnMut(&News),
    failures: &mut u32,
) -> Result<Option<String>, Failure> {
    let mut stream = client.watch(token.authorize(WatchRequest {})?).await?.into_inner();
    while let Some(message) = stream.message().await? {
        *failures = 0;
        let Some(news) = News::of(message) else { continue };
        tell(&news);
        if let News::SessionEnding { cause, .. } = news {
            return Ok((cause != CAUSE_DRAINING).then_some(cause));
        }
    }
    Ok(None)
}

impl News {
    /// An event that this version does not know is no news.
    fn of(message: WatchResponse) -> Option<Self> {
        Some(match message.event? {
            Event::Heartbeat(event) => Self::Heartbeat { at: moment(event.at) },
            Event::LeaseExpiring(event) => Self::LeaseExpiring {
                lease_id: event.lease_id,
                expires_at: moment(event.expires_at),
            },
            Event::LeaseChanged(event) => Self::LeaseChanged {
                state: state(event.state()),
                lease_id: event.lease_id,
                cause: event.cause,
                reason: event.reason,
                code: event.code,
            },
            Event::SessionEnding(event) => {
                Self::SessionEnding { cause: event.cause, reason: event.reason, code: event.code }
            }
        })
    }

    /// The news as a sentence; a heartbeat is none.
    pub fn sentence(&self) -> Option<String> {
        Some(match self {
            Self::Heartbeat { .. } => return None,
            Self::LeaseExpiring { lease_id, expires_at } => format!(
                "lease {lease_id} ends at {expires_at} and is not extended: issue again if it is still needed"
            ),
            Self::LeaseChanged { lease_id, state, cause, .. } if cause.is_empty() => {
                format!("lease {lease_id} is {state}")
            }
            Self::LeaseChanged { lease_id, state, cause, reason, .. } => {
                format!("lease {lease_id} is {state} ({cause}){}", because(reason))
            }
            Self::SessionEnding { cause, .. } if cause == CAUSE_DRAINING => {
                "the broker shuts down; the session goes on after its restart".to_owned()
            }
            Self::SessionEnding { cause, reason, .. } => {
                let because = because(reason);
                format!("the session is over ({cause}), its credentials stop working{because}")
            }
            Self::Interrupted { error } => format!("heartbeat interrupted, trying again: {error}"),
        })
    }
}

/// The sentence of a refusal behind another one.
fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn pause(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(PAUSE_MAX)
}

/// The broker shuts down; the session does not end by it.
const CAUSE_DRAINING: &str = "draining";

/// Short, since the heartbeat grace runs; a restarted broker is back within a second or two.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Often enough to be heard within the shortest useful heartbeat grace.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// About five minutes: no session outlives such a silence, and a loop needs an end.
const RETRIES_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use claviger_proto::v1::{LeaseChanged, LeaseState, SessionEnding};

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let millis: Vec<u128> = [1, 2, 3, 6, 64].map(|n| pause(n).as_millis()).to_vec();
        assert_eq!(millis, [250, 500, 1000, 5000, 5000]);
    }

    #[test]
    fn the_end_of_what_is_no_longer_permitted_says_why() {
        let event = SessionEnding {
            cause: "no-longer-permitted".to_owned(),
            reason: "forbidden by policy `closed`".to_owned(),
            code: "FORBIDDEN".to_owned(),
        };
        let news = News::of(WatchResponse { event: Some(Event::SessionEnding(event)) }).unwrap();
        let sentence = news.sentence().unwrap();
        assert!(sentence.ends_with("stop working: forbidden by policy `closed`"), "{sentence}");
        assert_eq!(serde_json::to_value(news).unwrap()["code"], "FORBIDDEN");
    }

    #[test]
    fn an_unknown_event_is_no_news() {
        assert_eq!(News::of(WatchResponse { event: None }), None);
    }

    #[test]
    fn news_is_told_as_a_sentence_and_as_json() {
        let event = LeaseChanged {
            lease_id: "int_1".to_owned(),
            state: LeaseState::Revoked.into(),
            cause: "released".to_owned(),
            ..Default::default()
        };
        let news = News::of(WatchResponse { event: Some(Event::LeaseChanged(event)) }).unwrap();
        assert_eq!(news.sentence().unwrap(), "lease int_1 is revoked (released)");
        let expect = serde_json::json!({
            "event": "lease-changed", "lease_id": "int_1", "state": "revoked", "cause": "released",
        });
        assert_eq!(serde_json::to_value(news).unwrap(), expect);
    }
}
