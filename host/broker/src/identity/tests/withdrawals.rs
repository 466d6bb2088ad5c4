//! What becomes of a session whose key is withdrawn while it begins.

use claviger_core::ports::Journal;
use claviger_core::session::{EndCause, KnownToken, Session};

use super::*;
use crate::journal::tests::world::{World as Recorded, token};
use crate::sessions::Sessions;

/// Whoever ended what the key had proved looked at the sessions that were remembered then.
#[tokio::test]
async fn a_session_that_is_remembered_after_its_key_was_withdrawn_is_ended() {
    let trusting = World::with(|spec| spec.keys.patience.refetch = Duration::ZERO);
    let recorded = Recorded::new().await;
    let principal = trusting.workload(&trusting.token()).await.unwrap();
    let sessions = Sessions::new(8, vec![]);
    let journal = &recorded.journal;

    let begun = begin(&recorded, &principal, 1).await;
    let kept = sessions.remember(journal, &trusting.identities, begun).await;
    assert_eq!(kept, Ok(true), "its key is published still");
    let silent = World::new();
    let begun = begin(&recorded, &principal, 2).await;
    let kept = sessions.remember(journal, &silent.identities, begun).await;
    assert_eq!(kept, Ok(true), "an issuer that says nothing withdraws nothing");

    let withdrawn = begin(&recorded, &principal, 3).await;
    let disowned = begin(&recorded, &principal, 4).await;
    let second = Key::es256("two");
    trusting.double.publish(&[&second]);
    trusting.workload(&second.sign(&claims())).await.unwrap();
    let nobody = Identities::default();
    for (case, identities, begun) in [
        ("its issuer publishes another key", &trusting.identities, withdrawn),
        ("its issuer is no longer trusted", &nobody, disowned),
    ] {
        let id = begun.1.id();
        let kept = sessions.remember(journal, identities, begun).await;
        assert_eq!(kept, Ok(false), "{case}");
        let row = journal.session(id).await.unwrap().unwrap();
        assert_eq!(row.end.map(|(_, cause)| cause), Some(EndCause::KeyWithdrawn), "{case}");
    }
    assert_eq!(sessions.len(), 2, "and none of these takes a place");
}

/// A session as it is between its record and the moment at which it is remembered.
async fn begin(
    recorded: &Recorded,
    principal: &Principal,
    number: u8,
) -> (KnownToken, Arc<Session>) {
    let session = fixture::session_of(&recorded.policies.0, principal, number);
    recorded.journal.begin_session(&session, &token(number), &recorded.begun()).await.unwrap();
    (token(number), session)
}
