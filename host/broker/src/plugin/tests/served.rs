//! Whoever attacks, others are served: honest calls of another plugin on the same sandbox, while
//! more attackers run than there are threads.

use super::canary::backend_of;
use super::*;
use crate::egress::http::HttpAuth;
use crate::egress::http::tests::server::{Server, wait_for_end};

/// Four attackers on two threads. Did they not make way, no honest call would come to its end
/// before theirs; all of them must be served while an attacker still runs.
async fn check(attacker: &str, parameters: &'static str) {
    let sandbox = Sandbox::start(patient()).unwrap();
    let hostile = Arc::new(Fixture::on(Arc::clone(&sandbox), attacker, bare_backend()).await);
    let honest = Arc::new(Fixture::on(sandbox, "hostile/keeps_state", bare_backend()).await);
    let attacks: Vec<_> = (0..4)
        .map(|_| {
            let hostile = Arc::clone(&hostile);
            tokio::spawn(async move {
                let request = |settings: &str| issue_request(intent(), settings, parameters);
                hostile.plugins.mint(&"backend".parse().unwrap(), request).await.map(drop)
            })
        })
        .collect();
    let served = tokio::spawn(async move {
        for _ in 0..HONEST_CALLS {
            honest.revoke(intent()).await?;
        }
        Ok::<_, PluginError>(())
    });
    served.await.unwrap().expect("an honest call is served");
    assert!(attacks.iter().any(|running| !running.is_finished()), "{attacker} was over already");
    for attack in attacks {
        let error = attack.await.unwrap().unwrap_err();
        assert!(error.message.contains("more processor time"), "{attacker}: {error}");
    }
}

/// Four turns, and as many calls of one plugin that wait for a service that never answers.
#[tokio::test]
async fn others_are_served_while_a_dead_upstream_holds_all_turns_that_it_gets() {
    let server = Server::answering(|_, wire| wait_for_end(wire));
    let sandbox = Sandbox::start(Limits { calls_max: 4, ..patient() }).unwrap();
    let backend = backend_of(&server, HttpAuth::None);
    let waiting = Fixture::on(Arc::clone(&sandbox), "hostile/request_forger", backend).await;
    let waiting = Arc::new(waiting);
    let honest = Fixture::on(sandbox, "hostile/keeps_state", bare_backend()).await;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let waiting = Arc::clone(&waiting);
            tokio::spawn(async move {
                let request = |settings: &str| issue_request(intent(), settings, "{}");
                waiting.plugins.mint(&"backend".parse().unwrap(), request).await.map(drop)
            })
        })
        .collect();
    while server.seen().len() < 2 {
        tokio::task::yield_now().await;
    }
    honest.revoke(intent()).await.expect("an honest call is served");
    assert_eq!(server.seen().len(), 2, "one plugin has half of the turns");
    assert!(calls.iter().all(|call| !call.is_finished()), "they are waiting");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_loops_run() {
    check("hostile/endless_loop", "{}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_bulk_instructions_run() {
    check("hostile/bulk_memory", "{}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_random_bytes_are_drawn() {
    check("hostile/random_flood", "{}").await;
}

/// Few enough for the two seconds of processor time that each attacker has.
const HONEST_CALLS: u32 = 16;
