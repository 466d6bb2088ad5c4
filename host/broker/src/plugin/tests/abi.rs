//! The plugins of earlier releases, as they were built then, on today's host.

use super::*;

/// What was released. The components lie in `tests/abi/`, which tells how to add one.
const RELEASES: [&str; 1] = ["0.1.0/postgres"];

#[tokio::test]
async fn the_plugins_of_earlier_releases_still_run() {
    let server = server();
    for release in RELEASES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/abi").join(release);
        let path = path.with_extension("wasm");
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{release}: {error}"));
        let spec = PluginSpec { path, bytes, ..plugin(POSTGRES) };
        let sandbox = Sandbox::start(patient()).unwrap();
        let (plugins, backends) = (vec![spec], vec![database_backend(server)]);
        let seen = Seen::default();
        // Loading links every import and asks the plugin to check its configuration.
        let plugins = Plugins::load_on(sandbox, plugins, backends, observer(&seen))
            .unwrap_or_else(|errors| panic!("{release}: {}", messages(&errors)));
        let fixture = Fixture { plugins, seen };
        let id = intent();
        let fields = fields(fixture.issue(id).await.expect(release));
        let login = || server.try_psql(&fields["user"], &fields["password"], "SELECT 1").status;
        assert!(login().success(), "{release}");
        fixture.revoke(id).await.expect(release);
        assert!(!login().success(), "{release}");
    }
}
