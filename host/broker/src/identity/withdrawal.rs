//! Ends the sessions whose proof no longer counts: the issuer has withdrawn the key that signed it,
//! or the configuration the issuer. An outage withdraws nothing.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::flow;
use claviger_core::ids::SessionId;
use claviger_core::principal::Signer;
use claviger_core::session::{EndCause, Session};
use tokio::task::JoinSet;

use super::Identities;
use super::keys::KeySet;
use super::published::Published;
use crate::broker::Broker;

/// Keeps the keys of every issuer fresh, and ends what they no longer prove. Runs until it is
/// dropped.
pub async fn watch_all(broker: Arc<Broker>) {
    let signers = broker.identities.signers();
    end_where(&broker, |signer| !signers.iter().any(|(name, _)| *name == signer.issuer)).await;
    let mut loops = JoinSet::new();
    for (name, published) in signers {
        loops.spawn(watch(Arc::clone(&broker), (name, published)));
    }
    for issuer in broker.identities.issuers() {
        let fresh = Arc::clone(issuer);
        loops.spawn(async move { fresh.keep_fresh().await });
    }
    let own = Arc::clone(&broker);
    loops.spawn(async move { own.identities.follow_bundle().await });
    while loops.join_next().await.is_some() {}
}

async fn watch(broker: Arc<Broker>, (name, published): (String, Arc<Published>)) {
    let mut seen: Option<Arc<KeySet>> = None;
    loop {
        let keys = published.after(seen.as_ref()).await;
        end_where(&broker, |signer| signer.issuer == name && !keys.holds(&signer.key)).await;
        seen = Some(keys);
    }
}

/// Whether a signer of the session counts no longer, by what is published at this moment.
///
/// `Sessions::remember` asks once a session is remembered, since `end_where` looks only at those
/// that are. Whichever of the two comes last finds the other's work, and no session whose key was
/// withdrawn while it began lives on.
pub fn is_withdrawn(identities: &Identities, session: &Session) -> bool {
    let known = identities.signers();
    signers(session).any(|signer| {
        let of_issuer = known.iter().find(|(name, _)| *name == signer.issuer);
        // Of an issuer that has published nothing yet, nothing is withdrawn.
        of_issuer.is_none_or(|(_, published)| {
            published.newest().is_some_and(|(keys, _)| !keys.holds(&signer.key))
        })
    })
}

/// Ends every live session of which a signer is one of those, however long the journal takes. Those
/// that are remembered later ask [`is_withdrawn`].
async fn end_where(broker: &Broker, is_gone: impl Fn(&Signer) -> bool) {
    loop {
        let found = broker.sessions.of_whom(|session| signers(session).any(&is_gone));
        for session in &found {
            end(broker, *session).await;
        }
        if found.is_empty() {
            return;
        }
        tokio::time::sleep(JOURNAL_WAIT).await;
    }
}

fn signers(session: &Session) -> impl Iterator<Item = &Signer> {
    let requester = session.requester().grounds().signer.as_ref();
    session.principal().signer().into_iter().chain(requester)
}

async fn end(broker: &Broker, session: SessionId) {
    match flow::session::end(broker, session, EndCause::KeyWithdrawn).await {
        Ok(_) => {
            broker.sessions.remove(session);
            tracing::warn!(session.id = %session, "a session ended: its issuer withdrew a key");
        }
        Err(error) => {
            tracing::error!(session.id = %session, %error, "a session could not be ended");
        }
    }
}

/// The journal looks at itself twice a second; asking more often gains nothing.
const JOURNAL_WAIT: Duration = Duration::from_millis(500);
