//! Hostile components: each names what stops it, and honest calls are served before and after.

use claviger_core::ports::PluginErrorKind;

use super::*;

async fn hostile(name: &str) -> Fixture {
    Fixture::load(&format!("hostile/{name}"), bare_backend()).await
}

/// The attack ends with `kind` and a message that says why; the next call is served.
async fn check(name: &str, kind: PluginErrorKind, sentence: &str) {
    let fixture = hostile(name).await;
    let error = fixture.issue(intent()).await.err().unwrap();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(sentence), "{error}");
    assert!(!error.request_sent, "nothing was sent");
    fixture.revoke(intent()).await.expect("an honest call of the same plugin is served");
}

async fn report(fixture: &Fixture) -> String {
    fields(fixture.issue(intent()).await.unwrap())["report"].clone()
}

#[tokio::test]
async fn an_endless_loop_runs_out_of_processor_time() {
    check("endless_loop", PluginErrorKind::Sandbox, "more processor time").await;
}

#[tokio::test]
async fn a_panic_ends_its_own_call() {
    check("panic", PluginErrorKind::Sandbox, "hostile panic").await;
}

#[tokio::test]
async fn recursion_ends_at_the_guests_own_stack() {
    check("stack_overflow", PluginErrorKind::Sandbox, "overflowed its stack").await;
}

#[tokio::test]
async fn a_memory_bomb_gets_no_more_than_its_share() {
    let fixture = hostile("memory_bomb").await;
    let mib: usize = report(&fixture).await.parse().unwrap();
    assert!((1..32).contains(&mib), "{mib} MiB");
}

#[tokio::test]
async fn a_connection_outside_the_grant_is_not_even_linked() {
    let errors = load_errors(plugin("hostile/foreign_connection"), bare_backend()).await;
    assert!(errors.contains("imports `claviger:sql/sql@0.1."), "{errors}");
    assert!(errors.contains("requests no connection of kind `sql`"), "{errors}");
}

#[tokio::test]
async fn a_socket_of_its_own_is_refused_by_name() {
    let errors = load_errors(plugin("hostile/foreign_socket"), bare_backend()).await;
    assert!(errors.contains("imports `wasi:sockets/"), "{errors}");
    assert!(errors.contains("which no plugin gets"), "{errors}");
}

#[tokio::test]
async fn values_never_become_syntax() {
    let server = server();
    server.psql("CREATE TABLE IF NOT EXISTS canary (id int)");
    let fixture = Fixture::load("hostile/injector", database_backend(server)).await;
    assert_eq!(report(&fixture).await, "every value came back as it went");
    server.psql("SELECT FROM canary");
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_off() {
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    let fixture = hostile("log_flood").await;
    let report = report(&fixture).await;
    drop(guard);
    let lines = lines.0.lock().unwrap();
    assert!(lines.len() <= 66, "{} lines", lines.len());
    assert!(
        lines.iter().all(|line| line.len() <= 2 * 1024 + 64 && !line.contains(['\n', '\u{1b}']))
    );
    assert!(lines.iter().any(|line| line.contains("log lines of one call were dropped")));
    assert!(report.ends_with("lines went to standard error"), "{report}");
}

#[tokio::test]
async fn no_secret_is_found_by_a_plugin_that_looks_everywhere() {
    let server = server();
    let lines = Lines::default();
    let guard = tracing::subscriber::set_default(lines.clone());
    let fixture = Fixture::load("hostile/secret_finder", database_backend(server)).await;
    let request = |end: &'static str| {
        move |settings: &str| issue_request(intent(), settings, &format!(r#"{{"end": "{end}"}}"#))
    };
    let backend = "backend".parse().unwrap();
    let issued = fixture.plugins.mint(&backend, request("lease")).await.unwrap();
    let error = fixture.plugins.mint(&backend, request("error")).await.err().unwrap();
    drop(guard);
    let fields = fields(issued);
    let lines = lines.0.lock().unwrap().join("\n");
    for told in [&fields["report"], &error.to_string(), &lines] {
        assert!(!told.contains(server.password()), "the root password got out");
        assert!(!told.contains(&fields["password"]), "the minted password got out");
    }
    assert!(lines.contains("SCRAM-SHA-256") || lines.contains("[redacted]"), "it did look");
}

#[tokio::test]
async fn the_third_trap_within_a_minute_quarantines() {
    let fixture = hostile("panic").await;
    for _ in 0..3 {
        let error = fixture.issue(intent()).await.err().unwrap();
        assert_eq!(error.kind, PluginErrorKind::Sandbox);
    }
    let error = fixture.revoke(intent()).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::NotLoaded);
    assert!(error.message.contains("quarantined for"), "{error}");
    let seen = fixture.outcomes();
    assert_eq!(
        &seen[1..],
        [Outcome::Trapped, Outcome::Trapped, Outcome::Trapped, Outcome::Quarantined]
    );
}

pub(super) async fn load_errors(plugin: PluginSpec, backend: BackendSpec) -> String {
    let sandbox = Sandbox::start(patient()).unwrap();
    let (plugins, backends) = (vec![plugin], vec![backend]);
    let loaded = Plugins::load_on(sandbox, plugins, backends, observer(&Seen::default()));
    messages(&loaded.err().expect("it must be refused"))
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// All of it.
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("claviger")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
