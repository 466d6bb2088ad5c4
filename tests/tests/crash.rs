//! The broker is killed a hundred times in the middle of its work; nothing is forgotten.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may panic, and says its seed"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, lease_rows, reason, try_channel};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_crashes_under_load_orphan_no_credential() {
    let mut random = Random::seeded();
    let settings = Settings { intent_timeout: "16s", heartbeat_grace: "1h", ..Settings::default() };
    let world = World::with(settings);
    let mut broker = Broker::start(&world).await;
    let load = Arc::new(Load::on(broker.socket()));
    let mut agents = JoinSet::new();
    for _ in 0..AGENTS {
        let seed = random.next();
        agents.spawn(work(Arc::clone(&load), Random(seed)));
    }
    for _ in 0..CRASHES {
        load.reach_a_random_moment(&mut random).await;
        broker.kill();
        broker = Broker::start(&world).await;
    }
    load.reach_a_random_moment(&mut random).await;
    broker.kill();
    load.stopped.store(true, Ordering::SeqCst);
    let sessions = agents.join_all().await;
    println!("{load:?}");

    let broker = Broker::start(&world).await;
    every_login_has_a_lease(&world, &broker).await;
    let live = living(&broker, sessions).await;
    only_live_sessions_hold_leases(&broker, &live).await;
    for session in &live {
        session.close().await.expect("closed");
    }
    world.until_no_logins().await;
    poll::until("every lease is final", || async {
        lease_rows(&broker.admin_socket(), &[]).await.is_empty().then_some(())
    })
    .await;
    let verified = claviger(&broker, &["audit", "verify"]).output().expect("claviger runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    load.was_heavy();
}

/// Leases first: between the two looks a lease may end, and its login with it, but none begins.
async fn every_login_has_a_lease(world: &World, broker: &Broker) {
    let rows = lease_rows(&broker.admin_socket(), &[]).await;
    let held: BTreeSet<_> = rows.iter().filter_map(|row| row.lease.as_ref()).map(login).collect();
    let orphans: Vec<_> =
        world.logins().into_iter().filter(|login| !held.contains(login)).collect();
    assert!(orphans.is_empty(), "logins without a lease that will end them: {orphans:?}");
}

/// The sessions that must have survived, and of those that were being closed the ones that did.
async fn living(broker: &Broker, sessions: Vec<Sessions>) -> Vec<Agent> {
    let mut live = Vec::new();
    for Sessions { open, closing } in sessions {
        if let Some(agent) = open {
            let agent = agent.reconnected(&broker.socket()).await;
            agent.leases().await.expect("an open session survives every crash");
            live.push(agent);
        }
        for agent in closing {
            let agent = agent.reconnected(&broker.socket()).await;
            match agent.leases().await {
                Ok(_) => live.push(agent),
                Err(status) => assert_eq!(reason(&status), "NO_SESSION", "{status:?}"),
            }
        }
    }
    live
}

/// What no living session holds ends by itself: what was due, and intents that time out.
async fn only_live_sessions_hold_leases(broker: &Broker, live: &[Agent]) {
    let live: BTreeSet<_> = live.iter().map(|agent| agent.session.as_str()).collect();
    poll::until("only living sessions hold leases, and only active ones", || async {
        let rows = lease_rows(&broker.admin_socket(), &[]).await;
        let settled = rows.iter().all(|row| {
            let state = row.lease.as_ref().map(v1::Lease::state);
            state == Some(v1::LeaseState::Active) && live.contains(row.session_id.as_str())
        });
        settled.then_some(())
    })
    .await;
}

fn login(lease: &v1::Lease) -> String {
    format!("clav_{}", lease.lease_id.trim_start_matches("int_"))
}

/// What the agents did, and when they are to stop.
#[derive(Debug)]
struct Load {
    socket: PathBuf,
    stopped: AtomicBool,
    begun: AtomicU64,
    issued: AtomicU64,
    broken_off: AtomicU64,
}

impl Load {
    fn on(socket: PathBuf) -> Self {
        let [begun, issued, broken_off] = [0; 3].map(AtomicU64::new);
        Self { socket, stopped: AtomicBool::new(false), begun, issued, broken_off }
    }

    /// Some calls from now, and a little later: anywhere between two calls and within one.
    async fn reach_a_random_moment(&self, random: &mut Random) {
        let until = self.begun.load(Ordering::SeqCst) + random.below(CALLS_BETWEEN_CRASHES_MAX);
        poll::until("the agents are at work", || {
            std::future::ready((self.begun.load(Ordering::SeqCst) >= until).then_some(()))
        })
        .await;
        for _ in 0..random.below(YIELDS_MAX) {
            tokio::task::yield_now().await;
        }
    }

    /// A channel to a living broker; none once the load is to stop.
    async fn channel(&self) -> Option<Channel> {
        poll::until("a broker listens", || async {
            match self.stopped.load(Ordering::SeqCst) {
                true => Some(None),
                false => try_channel(&self.socket).await.ok().map(Some),
            }
        })
        .await
    }

    /// Counts a call. A broken-off one is what this test is about, and the next waits until there
    /// is a broker again; no other error may happen.
    async fn count<T>(&self, answer: Result<T, Status>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(status) => {
                // A killed broker says nothing; what a living one says has a reason in it.
                assert_eq!(reason(&status), "", "{status:?}");
                self.broken_off.fetch_add(1, Ordering::SeqCst);
                self.channel().await;
                None
            }
        }
    }

    fn was_heavy(&self) {
        let (issued, broken_off) =
            (self.issued.load(Ordering::SeqCst), self.broken_off.load(Ordering::SeqCst));
        assert!(issued >= u64::from(CRASHES), "only {issued} credentials were issued");
        assert!(broken_off >= u64::from(CRASHES) / 2, "only {broken_off} calls were broken off");
    }
}

/// What one agent holds when the load stops.
#[derive(Default)]
struct Sessions {
    open: Option<Agent>,
    /// Those whose close was broken off: it may have been recorded, or not.
    closing: Vec<Agent>,
}

/// One session after the other, each over many lives of the broker.
async fn work(load: Arc<Load>, mut random: Random) -> Sessions {
    let mut sessions = Sessions::default();
    while !load.stopped.load(Ordering::SeqCst) {
        match sessions.open.take() {
            None => sessions.open = open(&load).await,
            Some(agent) if random.below(8) == 0 => {
                load.begun.fetch_add(1, Ordering::SeqCst);
                if load.count(agent.close().await).await.is_none() {
                    sessions.closing.push(agent);
                }
            }
            Some(agent) => {
                step(&load, &agent, &mut random).await;
                sessions.open = Some(agent);
            }
        }
    }
    sessions
}

async fn open(load: &Load) -> Option<Agent> {
    let channel = load.channel().await?;
    load.begun.fetch_add(1, Ordering::SeqCst);
    load.count(Agent::open_on(channel, "support-triage", None).await).await
}

/// One call, or two, of a session that lives; its channel connects again by itself.
async fn step(load: &Load, agent: &Agent, random: &mut Random) {
    load.begun.fetch_add(1, Ordering::SeqCst);
    if random.below(3) > 0 {
        if load.count(agent.issue("orders-db/readonly").await).await.is_some() {
            load.issued.fetch_add(1, Ordering::SeqCst);
        }
        return;
    }
    let leases = load.count(agent.leases().await).await.unwrap_or_default();
    if let Some(lease) = leases.first() {
        load.count(agent.release(&lease.lease_id).await).await;
    }
}

/// Enough for a test: splitmix64.
struct Random(u64);

impl Random {
    /// From `CLAVIGER_SEED`, to repeat a run, or from the clock.
    fn seeded() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let seed = match std::env::var("CLAVIGER_SEED") {
            Ok(seed) => seed.parse().expect("a number in CLAVIGER_SEED"),
            Err(_) => u64::try_from(clock & u128::from(u64::MAX)).expect("masked"),
        };
        println!("CLAVIGER_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const CRASHES: u32 = 100;

/// As many as keep calls of every kind under way at any moment.
const AGENTS: usize = 6;

/// From crashes right after the start to crashes amid issuing, revoking and closing.
const CALLS_BETWEEN_CRASHES_MAX: u64 = 30;

/// A few milliseconds: longer than the shortest call, shorter than the longest.
const YIELDS_MAX: u64 = 3000;
