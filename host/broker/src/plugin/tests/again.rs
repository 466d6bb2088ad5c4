//! Loading again on the same sandbox, and out of the cache of compiled components.

use aws_lc_rs::hmac;

use super::super::cache::ComponentCache;
use super::super::components::Components;
use super::hostile::load_errors;
use super::*;

fn load(sandbox: Arc<Sandbox>, component: &str) -> Fixture {
    let seen = Seen::default();
    let (plugins, backends) = (vec![plugin(component)], vec![bare_backend()]);
    let plugins = Plugins::load_on(sandbox, plugins, backends, observer(&seen));
    Fixture { plugins: plugins.map_err(|errors| messages(&errors)).unwrap(), seen }
}

fn again(fixture: &Fixture, plugins: Vec<PluginSpec>, backends: Vec<BackendSpec>) -> Fixture {
    let plugins = fixture.plugins.load_again(plugins, backends);
    let plugins = plugins.map_err(|errors| messages(&errors)).unwrap();
    Fixture { plugins, seen: Arc::clone(&fixture.seen) }
}

/// The same plugin for the guest, other bytes for the host.
fn changed(mut spec: PluginSpec) -> PluginSpec {
    spec.bytes.extend([0, 5, 4, b'c', b'o', b'p', b'y']);
    spec
}

fn cached(folder: &Path) -> Arc<Sandbox> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let cache = ComponentCache::open(folder.to_owned(), key).unwrap();
    Sandbox::start_with(patient(), Components::new(Some(cache))).unwrap()
}

#[tokio::test]
async fn the_same_bytes_keep_their_quarantine_and_other_bytes_begin_anew() {
    let fixture = load(Sandbox::start(patient()).unwrap(), "hostile/panic");
    for _ in 0..3 {
        fixture.issue(intent()).await.err().unwrap();
    }
    let name = "plugin".parse().unwrap();
    assert_eq!(fixture.plugins.is_quarantined(&name), Some(true));
    let other = changed(plugin("hostile/panic"));
    let other = again(&fixture, vec![other], vec![bare_backend()]);
    assert_eq!(other.plugins.is_quarantined(&name), Some(false));

    // A quarantined plugin cannot check a configuration, so a reload with it would be refused:
    // without backends it has nothing to check.
    let same = again(&fixture, vec![plugin("hostile/panic")], vec![]);
    assert_eq!(same.plugins.is_quarantined(&name), Some(true));
    assert_eq!(same.plugins.list()[0].traps, 3);
    assert!(same.plugins.lift_quarantine(&name));
    assert_eq!(fixture.plugins.is_quarantined(&name), Some(false), "it is one and the same");
    fixture.revoke(intent()).await.expect("an honest call is served at once");
}

#[tokio::test]
async fn a_backend_that_is_gone_is_still_revoked_on() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, database_backend(server)).await;
    let id = intent();
    let fields = fields(fixture.issue(id).await.unwrap());
    let gone = again(&fixture, vec![], vec![]);
    assert!(gone.plugins.list().is_empty());
    gone.revoke(id).await.expect("the earlier plugin and connection are kept for it");
    assert!(!server.try_psql(&fields["user"], &fields["password"], "SELECT 1").status.success());
    let later = again(&gone, vec![], vec![]);
    later.revoke(id).await.expect("also after another reload");
}

#[tokio::test]
async fn a_set_with_a_problem_leaves_the_earlier_one_as_it_was() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, database_backend(server)).await;
    let pinned = PluginSpec { sha256_pin: Some([7; 32]), ..plugin(POSTGRES) };
    let refused = fixture.plugins.load_again(vec![pinned], vec![database_backend(server)]);
    assert!(messages(&refused.err().unwrap()).contains("pins 0707"));
    let id = intent();
    fixture.issue(id).await.expect("it goes on");
    fixture.revoke(id).await.unwrap();
}

#[tokio::test]
async fn a_compiled_component_is_kept_and_a_changed_file_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let files = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let report = |fixture: Fixture| async move {
        fields(fixture.issue(intent()).await.unwrap())["report"].clone()
    };
    assert_eq!(report(load(cached(folder.path()), "hostile/keeps_state")).await, "nothing");
    let [file] = files().try_into().unwrap();
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(report(load(cached(folder.path()), "hostile/keeps_state")).await, "nothing");
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written, "read, not written");

    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    assert_eq!(report(load(cached(folder.path()), "hostile/keeps_state")).await, "nothing");
    assert_ne!(std::fs::read(&file).unwrap(), bad, "it was compiled and written anew");
}

#[tokio::test]
async fn the_limits_of_an_interpreter_are_granted_or_refused_with_what_to_write() {
    let name = "hostile/interpreted_bomb";
    let errors = load_errors(plugin(name), bare_backend()).await;
    assert!(errors.contains("[plugins.plugin]\nlimits = \"interpreted\""), "{errors}");
    let mut granted = plugin(name);
    granted.terms.limits = LimitsClass::Interpreted;
    let sandbox = Sandbox::start(patient()).unwrap();
    let seen = Seen::default();
    let plugins = Plugins::load_on(sandbox, vec![granted], vec![bare_backend()], observer(&seen));
    let fixture = Fixture { plugins: plugins.map_err(|e| messages(&e)).unwrap(), seen };
    let mib = &fields(fixture.issue(intent()).await.unwrap())["report"];
    let mib: usize = mib.parse().unwrap();
    assert!((32..256).contains(&mib), "{mib} MiB");
}

#[test]
fn the_pool_has_room_for_interpreters() {
    // Were there none, the engine would fall back to single allocations with a warning, and no
    // other test would notice.
    super::super::engine::pooled(&patient()).unwrap();
}
