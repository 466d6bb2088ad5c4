//! The guided tour: starts what it needs, shows one session from request to revocation, cleans up.

mod broker;
mod database;

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use claviger_test_servers::{Moto, Postgres, program};
use serde_json::Value;

use crate::paths::Paths;
use crate::setup::{self, Mode};
use crate::step::Step;
use broker::Broker;

/// Makes everything ready, then runs the tour.
pub fn prepare_and_run(paths: &Paths) -> Result<()> {
    setup::run(paths, Mode::Install)?;
    crate::plugins::build_own(paths)?;
    // The same targets as the tests: cargo would choose other features for half of the dependencies
    // without them, and whoever runs both commands would compile those twice.
    Step::cargo("build the broker and the command line", &paths.root)
        .args(["build", "--workspace", "--all-targets"])
        .run()?;
    run(paths)
}

fn run(paths: &Paths) -> Result<()> {
    title("A PostgreSQL server, a stand-in for AWS (moto), and a broker beside them");
    let postgres = Postgres::start();
    database::prepare(&postgres);
    let aws = Moto::start();
    let broker = Broker::start(paths, &postgres, &aws)?;
    println!("The roles are four prompt files: xtask/demo/prompts/*.md");
    println!("The policies are one Cedar file: xtask/demo/policies/demo.cedar");

    title("1. An agent whose prompt file declares `orders.read` gets a login of its own");
    let psql = ["psql", "-c", "SELECT current_user AS login, count(*) AS orders FROM orders"];
    let grant =
        ["run", "--role", "support-triage", "--reason", "ticket 4711", "--grant", READONLY, "--"];
    broker.show(&[&grant[..], &psql].concat(), Expect::Success)?;

    title("2. The login can do what its scope grants, and nothing else");
    let delete = ["psql", "-c", "DELETE FROM orders"];
    broker.show(&[&grant[..], &delete].concat(), Expect::Failure)?;

    title("3. An agent whose prompt file declares nothing is refused, and told why");
    let refused = ["run", "--role", "code-reviewer", "--grant", READONLY, "--", "psql"];
    broker.show(&refused, Expect::Failure)?;

    title("4. What a session holds dies with it, open connections too");
    open_connection_dies(&broker, &postgres)?;

    title("5. On AWS too: a role session of 15 minutes, used by boto3 as it is");
    let (python, script) = (program("python"), paths.root.join("xtask/demo/report.py"));
    let (python, script) = (python.to_string_lossy(), script.to_string_lossy());
    let report = ["run", "--role", "report-builder", "--grant", "aws/reports", "--"];
    broker.show(&[&report[..], &[&python, &script, aws.url()]].concat(), Expect::Success)?;

    title("6. The journal knew of everything before it existed, and nobody has changed it since");
    broker.show(&["audit", "query", "--last", "8"], Expect::Success)?;
    broker.show(&["audit", "verify"], Expect::Success)?;

    broker.stop()?;
    drop((postgres, aws));
    println!("\nEverything that the demo started is stopped, and its files are removed.");
    Ok(())
}

fn open_connection_dies(broker: &Broker, postgres: &Postgres) -> Result<()> {
    let opened = broker.json(&["session", "open", "--role", "support-triage"], None)?;
    let token = text_at(&opened, "session_token")?;
    println!("$ claviger session open --role support-triage");
    let issued = broker.json(&["issue", READONLY], Some(&token))?;
    println!("$ claviger issue {READONLY}");
    let mut psql = connected_psql(&issued)?;
    let mut input = psql.stdin.take().context("psql has no input")?;
    writeln!(input, "SELECT 'connected as ' || current_user AS psql;")?;
    database::wait_for_connection(postgres)?;
    println!("$ claviger session close");
    broker.json(&["session", "close"], Some(&token))?;
    database::wait_until_no_login(postgres)?;
    writeln!(input, "SELECT 'still alive' AS psql;")?;
    drop(input);
    let ended = psql.wait()?;
    ensure!(!ended.success(), "the open connection survived the end of its session");
    println!("psql lost its connection, and its login no longer exists.");
    Ok(())
}

/// A psql that holds its connection open and says what it is told.
fn connected_psql(issued: &Value) -> Result<Child> {
    let fields =
        find(issued, "fields").and_then(Value::as_array).context("no fields were issued")?;
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--tuples-only", "--set", "ON_ERROR_STOP=1"]).stdin(Stdio::piped());
    for field in fields {
        psql.env(text_at(field, "env")?, text_at(field, "value")?);
    }
    psql.spawn().context("psql cannot start")
}

/// What a command of the tour should come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Success,
    Failure,
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key))),
        _ => None,
    }
}

fn text_at(value: &Value, key: &str) -> Result<String> {
    let found = find(value, key).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("the answer has no `{key}`"))
}

fn title(text: &str) {
    println!("\n=== {text}\n");
}

const READONLY: &str = "orders-db/readonly";
