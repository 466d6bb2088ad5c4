//! Many at once: nothing is lost, nothing is left behind, and one client's crowd does not keep
//! the others out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeSet;

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::Agent;
use claviger_e2e::poll;
use claviger_e2e::world::World;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_calls_at_once_mint_as_many_logins_and_all_of_them_end() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut asking = JoinSet::new();
    for _ in 0..AT_ONCE {
        let agent = agent.clone();
        asking.spawn(async move { agent.issue("orders-db/readonly").await });
    }
    let mut issued = Vec::new();
    while let Some(answer) = asking.join_next().await {
        issued.push(answer.expect("joined").expect("a credential"));
    }
    let users: BTreeSet<_> = issued.iter().map(|issued| issued.field("user").to_owned()).collect();
    let passwords: BTreeSet<_> = issued.iter().map(|issued| issued.field("password")).collect();
    assert_eq!((users.len(), passwords.len()), (AT_ONCE, AT_ONCE), "no two share a login");
    assert_eq!(world.logins().into_iter().collect::<BTreeSet<_>>(), users);

    assert_eq!(agent.close().await.expect("closed").leases_due, 64);
    poll::until("every login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
    for issued in issued.iter().take(3) {
        assert!(tokio_postgres::connect(&issued.dsn(), NoTls).await.is_err());
    }
    let verify = claviger(&broker, &["audit", "verify"]).output().expect("claviger runs");
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_agents_on_connections_of_their_own_are_served() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(UnixStream::connect(broker.socket()).await.expect("accepted"));
    }
    let mut opening = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let socket = broker.socket();
        opening.spawn(async move { Agent::open(&socket, "support-triage").await });
    }
    let mut agents = Vec::new();
    while let Some(opened) = opening.join_next().await {
        agents.push(opened.expect("joined").expect("a session"));
    }
    let sessions: BTreeSet<_> = agents.iter().map(|agent| agent.session.clone()).collect();
    assert_eq!(sessions.len(), CONNECTIONS);
    let last = agents.last().expect("an agent");
    last.issue("orders-db/readonly").await.expect("a credential among the crowd");
    drop(silent);
    let mut closing = JoinSet::new();
    for agent in agents {
        closing.spawn(async move { agent.close().await });
    }
    while let Some(closed) = closing.join_next().await {
        closed.expect("joined").expect("closed");
    }
    poll::until("the login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
    assert!(broker.stop().await.success());
}

/// As many calls as one connection may have in progress.
const AT_ONCE: usize = 64;

/// More than one agent host runs; a fraction of what the listener takes.
const CONNECTIONS: usize = 300;
