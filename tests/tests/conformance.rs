//! Every plugin that we ship passes the kit's suite on a real backend, and plugins that break their
//! promises do not. A new plugin adds a line to the table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::Path;
use std::process::{Command, Output};

use claviger_e2e::world::{self, ADMIN_PASSWORD, plugins, program};
use claviger_test_servers::Postgres;
use serde_json::Value;
use tempfile::TempDir;

/// A component and a backend that it can be tested on.
struct Subject {
    /// The component's path under the folder of plugins.
    component: &'static str,
    /// Starts the backend; writes what the suite needs into the folder.
    backend: fn(&Path) -> Box<dyn std::any::Any>,
    /// The cases that must fail. All others must not.
    fail: &'static [&'static str],
}

const SUBJECTS: &[Subject] = &[
    Subject { component: "postgres.wasm", backend: postgres, fail: &[] },
    Subject {
        component: "hostile/forgets_to_revoke.wasm",
        backend: postgres_without_group,
        fail: &[
            "revoke-then-use",
            "revoke-by-intent-alone",
            "issue-twice",
            "lost-issue-revoked",
            "lost-issue-repeated",
            "lost-revoke-repeated",
            "backend-down",
        ],
    },
];

#[test]
fn shipped_plugins_conform_and_liars_are_found_out() {
    for subject in SUBJECTS {
        check(subject);
    }
}

fn check(subject: &Subject) {
    let folder = tempfile::tempdir().expect("a folder");
    let _backend = (subject.backend)(folder.path());
    let component = plugins().join(subject.component);
    let output = kit(
        &folder,
        &["test", &component.display().to_string(), "--config", "conformance.toml", "-o", "json"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", subject.component, String::from_utf8_lossy(&output.stderr))
    });
    let cases = report["cases"].as_array().expect("cases");
    let failed: Vec<_> = cases
        .iter()
        .filter(|case| case["outcome"] == "failed")
        .map(|case| case["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(failed, subject.fail, "{}: {report:#}", subject.component);
    assert_eq!(output.status.success(), subject.fail.is_empty(), "{}", subject.component);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains(ADMIN_PASSWORD), "the report holds the root secret");
}

fn kit(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("clavigerd"));
    command.arg("plugin").args(arguments).current_dir(folder.path());
    command.output().expect("clavigerd runs")
}

fn postgres(folder: &Path) -> Box<dyn std::any::Any> {
    database(folder, "grant_role = \"orders_readonly\"")
}

fn postgres_without_group(folder: &Path) -> Box<dyn std::any::Any> {
    database(folder, "")
}

fn database(folder: &Path, parameters: &str) -> Box<dyn std::any::Any> {
    let server = Postgres::start();
    world::furnish(&server);
    let port = server.port();
    std::fs::write(folder.join("admin"), ADMIN_PASSWORD).expect("written");
    let psql = format!("psql -X -A -t -q -h 127.0.0.1 -p {port} -d postgres");
    let config = format!(
        r#"
[connections.admin]
address = "postgres://127.0.0.1:{port}/postgres?sslmode=disable"
auth = {{ password = {{ user = "claviger", password = "file:admin" }} }}
[scope]
{parameters}
[use]
command = ["sh", "-c", "{psql} -c 'SELECT 1'"]
[list]
command = ["sh", "-c", '''PGPASSWORD=$(cat admin) {psql} -U claviger -c "SELECT rolname FROM pg_roles WHERE rolname = 'clav_$CLAVIGER_INTENT'" ''']
"#
    );
    std::fs::write(folder.join("conformance.toml"), config).expect("written");
    Box::new(server)
}
