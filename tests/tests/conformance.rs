//! Every plugin that we ship passes the kit's suite on a real backend, and plugins that break their
//! promises do not. A new plugin adds a row to the table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::any::Any;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use claviger_e2e::aws::{Aws, READS, REPORTS_ROLE};
use claviger_e2e::shop::{self, BROKER_PASSWORD};
use claviger_e2e::token_api::{ADMIN_TOKEN, TokenApi};
use claviger_e2e::world::{self, ADMIN_PASSWORD, plugins, program};
use claviger_test_servers::{Mariadb, Postgres, program as test_tool};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A component and a backend that it can be tested on.
struct Subject {
    /// The component's path under the folder of plugins.
    component: &'static str,
    /// Starts the backend; writes what the suite needs into the folder.
    backend: fn(&Path) -> Backend,
    /// The cases that must fail. All others must not.
    fail: &'static [&'static str],
    /// The cases that the suite must skip for a reason. All others must run.
    skip: &'static [&'static str],
}

/// A backend that runs until it is dropped.
struct Backend {
    _alive: Box<dyn Any>,
    /// The broker's own secret, which no report may hold.
    root: String,
}

/// The rows, each a test of its own, so that they run side by side.
macro_rules! subjects {
    ($($name:ident: $subject:expr;)*) => {
        const SUBJECTS: &[Subject] = &[$($subject),*];

        $(
            #[test]
            fn $name() {
                check(&$subject);
            }
        )*
    };
}

subjects! {
    postgres_conforms: Subject {
        component: "postgres.wasm",
        backend: postgres,
        fail: &[],
        skip: &[],
    };
    mysql_conforms: Subject {
        component: "mysql.wasm",
        backend: mysql,
        fail: &[],
        // The server keeps no end of an account, as the manifest says.
        skip: &["expires-by-itself"],
    };
    aws_sts_conforms: Subject {
        component: "aws-sts.wasm",
        backend: aws_sts,
        fail: &[],
        // STS ends no session early and gives none below a quarter of an hour.
        skip: &["revoke-then-use", "revoke-by-intent-alone", "expires-by-itself"],
    };
    oidc_token_conforms: Subject {
        component: "oidc-token.wasm",
        backend: oidc_token,
        fail: &[],
        // Nobody asks the broker about a token, and the plugin reaches no network.
        skip: &[
            "revoke-then-use",
            "revoke-by-intent-alone",
            "lost-issue-revoked",
            "lost-issue-repeated",
            "lost-revoke-repeated",
            "backend-down",
            "backend-silent",
            "wrong-answers",
        ],
    };
    js_token_conforms: Subject {
        component: JAVASCRIPT,
        backend: token_api,
        fail: &[],
        skip: &[],
    };
    a_plugin_that_forgets_to_revoke_is_found_out: Subject {
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
        skip: &[],
    };
}

#[test]
fn every_plugin_that_was_built_has_a_row() {
    let entries = std::fs::read_dir(plugins()).expect("the folder of plugins");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().unwrap());
    let built: BTreeSet<_> = names.filter(|name| name.ends_with(".wasm")).collect();
    let rows = SUBJECTS.iter().map(|subject| subject.component.to_owned());
    let mut rows: BTreeSet<_> = rows.filter(|component| !component.contains('/')).collect();
    if !built.contains(JAVASCRIPT) {
        rows.remove(JAVASCRIPT);
    }
    assert_eq!(built, rows, "plugins that were built, and rows of this table");
}

#[allow(clippy::print_stderr, reason = "a row that is left out must say so")]
fn check(subject: &Subject) {
    let component = plugins().join(subject.component);
    if subject.component == JAVASCRIPT && !component.exists() {
        eprintln!("SKIPPED: `{}` is missing: Node.js builds it", component.display());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let backend = (subject.backend)(folder.path());
    let output = kit(
        &folder,
        &["test", &component.display().to_string(), "--config", "conformance.toml", "-o", "json"],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", subject.component, String::from_utf8_lossy(&output.stderr))
    });
    let cases = |outcome: &str| {
        let cases = report["cases"].as_array().expect("cases").iter();
        let ended = cases.filter(|case| case["outcome"] == outcome);
        ended.map(|case| case["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(cases("failed"), subject.fail, "{}: {report:#}", subject.component);
    assert_eq!(cases("skipped"), subject.skip, "{}: {report:#}", subject.component);
    assert_eq!(output.status.success(), subject.fail.is_empty(), "{}", subject.component);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains(&backend.root), "the report holds the root secret");
}

fn kit(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("clavigerd"));
    command.arg("plugin").args(arguments).current_dir(folder.path());
    command.output().expect("clavigerd runs")
}

fn postgres(folder: &Path) -> Backend {
    database(folder, "grant_role = \"orders_readonly\"")
}

fn postgres_without_group(folder: &Path) -> Backend {
    database(folder, "")
}

fn database(folder: &Path, parameters: &str) -> Backend {
    let server = Postgres::start();
    world::furnish(&server);
    let port = server.port();
    write(folder, "admin", ADMIN_PASSWORD);
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
    write(folder, "conformance.toml", &config);
    Backend { _alive: Box::new(server), root: ADMIN_PASSWORD.to_owned() }
}

fn mysql(folder: &Path) -> Backend {
    let server = Mariadb::start();
    shop::furnish(&server);
    write(folder, "admin", BROKER_PASSWORD);
    write(folder, "root", server.password());
    let (address, port, root) = (server.url(), server.port(), server.superuser());
    let config = format!(
        r#"
[connections.admin]
address = "{address}"
auth = {{ password = {{ user = "claviger", password = "file:admin" }} }}
[scope]
grant_role = "orders_readonly"
[use]
command = ["sh", "-c", '''mariadb --no-defaults -BN -u "$MYSQL_USER" "$MYSQL_DATABASE" -e "SELECT COUNT(*) FROM orders" ''']
[list]
command = ["sh", "-c", '''MYSQL_PWD=$(cat root) mariadb --no-defaults -BN -h 127.0.0.1 -P {port} -u {root} -e "SELECT user FROM mysql.user WHERE user = 'clav_$CLAVIGER_INTENT'" ''']
"#
    );
    write(folder, "conformance.toml", &config);
    Backend { _alive: Box::new(server), root: BROKER_PASSWORD.to_owned() }
}

fn aws_sts(folder: &Path) -> Backend {
    let aws = Aws::start();
    let key = aws.moto.root_key().clone();
    write(folder, "aws-id", &key.id);
    write(folder, "aws-key", &key.secret);
    write(folder, "use.py", READ_THE_REPORT);
    let command = json!([
        "env",
        "--unset=AWS_PROFILE",
        "NO_PROXY=127.0.0.1",
        "AWS_CONFIG_FILE=/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
        format!("AWS_ENDPOINT_URL={}", aws.moto.url()),
        test_tool("python"),
        "use.py"
    ]);
    let sts = aws.sts.url();
    let config = format!(
        r#"
[connections.sts]
address = "{sts}"
auth = {{ sigv4 = {{ access_key_id = "file:aws-id", secret_access_key = "file:aws-key", region = "eu-central-1", service = "sts" }} }}
methods = ["POST"]
paths = ["/"]
reach = ["loopback"]
{READS}
[scope]
max_ttl = "1h"
role_arn = "{REPORTS_ROLE}"
region = "eu-central-1"
[use]
command = {command}
"#
    );
    write(folder, "conformance.toml", &config);
    Backend { _alive: Box::new(aws), root: key.secret }
}

fn oidc_token(folder: &Path) -> Backend {
    write(folder, "use.py", VERIFY_THE_TOKEN);
    let command = json!(["env", "NO_PROXY=127.0.0.1", test_tool("python"), "use.py"]);
    let config = format!(
        r#"
[connections.issuer]
audiences = ["reports.example"]
[scope]
audience = "reports.example"
claims = {{ team = "finance" }}
[use]
command = {command}
"#
    );
    write(folder, "conformance.toml", &config);
    // The backend is the broker as an issuer, which the suite starts itself; its key is in no file.
    Backend { _alive: Box::new(()), root: "PRIVATE KEY".to_owned() }
}

fn token_api(folder: &Path) -> Backend {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let service = runtime.block_on(TokenApi::start(folder));
    let port = service.port();
    let curl = "curl --fail --silent --show-error --noproxy '*' --header";
    let config = format!(
        r#"
[connections.api]
address = "http://127.0.0.1:{port}"
reach = ["loopback"]
auth = {{ bearer = {{ token = "file:secrets/admin" }} }}
methods = ["POST", "DELETE"]
paths = ["/v1/tokens"]
reads = ["/id", "/expires_at"]
[scope]
scopes = ["read"]
[use]
command = ["sh", "-c", '''{curl} "authorization: Bearer $API_TOKEN" "$API_URL/v1/whoami" ''']
[list]
command = ["sh", "-c", '''{curl} "authorization: Bearer $(cat secrets/admin)" "http://127.0.0.1:{port}/v1/tokens?name=js-token-$CLAVIGER_INTENT" ''']
"#
    );
    write(folder, "conformance.toml", &config);
    Backend { _alive: Box::new(service), root: ADMIN_TOKEN.to_owned() }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

/// Built where Node.js is, and nowhere else.
const JAVASCRIPT: &str = "js-token.wasm";

/// The SDK as an agent uses it.
const READ_THE_REPORT: &str = r#"
import boto3
report = boto3.client("s3").get_object(Bucket="reports", Key="2026-q3.csv")["Body"].read()
assert report.startswith(b"region,total"), report
"#;

/// As a relying party does it: everything that it knows is the issuer and its own name.
const VERIFY_THE_TOKEN: &str = r#"
import json, os, urllib.request, jwt
issuer, token = os.environ["OIDC_ISSUER"], os.environ["OIDC_TOKEN"]
page = json.load(urllib.request.urlopen(issuer + "/.well-known/openid-configuration"))
assert page["issuer"] == issuer, page
key = jwt.PyJWKClient(page["jwks_uri"]).get_signing_key_from_jwt(token)
claims = jwt.decode(token, key, algorithms=page["id_token_signing_alg_values_supported"],
    issuer=issuer, audience="reports.example", options={"require": ["exp", "iat", "nbf", "sub", "jti"]})
assert claims["team"] == "finance", claims
"#;
