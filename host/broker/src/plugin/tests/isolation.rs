//! What one instance leaves in memory never meets the next: across calls, components, threads.

use super::*;

/// The component fills memory with a marker and reports markers that it finds beforehand. Two
/// copies of it with different digests take slots of the same pool in turn, on both threads; the
/// pool is small, so that every slot is used again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_marker_of_one_instance_is_seen_by_another() {
    let sandbox = Sandbox::start(Limits { calls_max: 4, ..patient() }).unwrap();
    let first =
        Arc::new(Fixture::on(Arc::clone(&sandbox), "hostile/keeps_state", bare_backend()).await);
    let mut other = plugin("hostile/keeps_state");
    // An empty custom section: another component for the engine, the same for the guest.
    other.bytes.extend([0, 5, 4, b'c', b'o', b'p', b'y']);
    let seen = Seen::default();
    let plugins = Plugins::load_on(sandbox, vec![other], vec![bare_backend()], observer(&seen));
    let second = Arc::new(Fixture { plugins: plugins.map_err(|e| messages(&e)).unwrap(), seen });
    let calls: Vec<_> = (0..96)
        .map(|call| {
            let fixture = Arc::clone(if call % 2 == 0 { &first } else { &second });
            tokio::spawn(async move { fixture.issue(intent()).await })
        })
        .collect();
    for call in calls {
        assert_eq!(fields(call.await.unwrap().unwrap())["report"], "nothing");
    }
}

/// Address space is scarce in some containers; a million slots of 4 GiB are scarce everywhere.
#[tokio::test]
async fn without_room_for_a_pool_calls_are_served_all_the_same() {
    let limits = Limits { calls_max: 1_000_000, ..patient() };
    let fixture = Fixture::with_limits("hostile/keeps_state", bare_backend(), limits).await;
    for _ in 0..3 {
        assert_eq!(fields(fixture.issue(intent()).await.unwrap())["report"], "nothing");
    }
}
