//! `claviger run`: a session that begins and ends with one command. Issues what `--grant` names
//! and hands it to the command as environment variables.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use claviger_core::binding::Thumbprint;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use tokio::sync::watch::Sender;
use tonic::transport::Channel;

use super::{Context, issue, session};
use crate::child::{self, Signals};
use crate::client::{Prepared, SessionToken, Target};
use crate::environment::{self, Environment};
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::proof::ProofArgs;
use crate::renewal::Held;
use crate::text::parse_span;
use crate::view::SessionView;
use crate::watch;

/// What to run, and with which credentials.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct RunArgs {
    /// The role to run, as its prompt file names it
    #[arg(long)]
    role: String,
    /// Run below the session of CLAVIGER_SESSION_TOKEN, as a sub-agent: within its reach, and no
    /// longer than it
    #[arg(long)]
    child: bool,
    /// How long the session may live, as in `2h` [default: the broker's]
    #[arg(long, value_parser = parse_span)]
    life: Option<Duration>,
    /// What this is for: recorded, never decides
    #[arg(long)]
    reason: Option<String>,
    /// A scope to issue at the start; its variables are set for the command. Repeatable
    #[arg(long = "grant", value_name = "SCOPE")]
    grants: Vec<String>,
    /// How long those credentials live, as in `30m` [default: the broker's]
    #[arg(long, value_parser = parse_span, requires = "grants")]
    ttl: Option<Duration>,
    /// An inherited variable to keep although it may hold a credential. Repeatable
    #[arg(long = "keep", value_name = "NAME")]
    kept: Vec<String>,
    /// Who runs it and for whom.
    #[command(flatten)]
    proof: ProofArgs,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Opens a session, runs the command in it, and closes it whatever happens.
pub async fn run(context: &Context, args: &RunArgs) -> Result<Exit, Failure> {
    context.printer.is_json()?;
    let mut signals = Signals::listen()?;
    let target = context.connection.agent_target()?;
    let prepared = target.prepare()?;
    let mut client = prepared.agent().await?;
    let mut request = session::open_request(args.role.clone(), args.life, args.reason.clone())?;
    args.proof.prove(&mut request).await?;
    let parent = args.child.then(SessionToken::from_environment).transpose()?;
    let opening = async {
        match &parent {
            Some(parent) => session::open_child(&mut client, parent, request).await,
            None => session::open(&mut client, request).await,
        }
    };
    let opened = tokio::select! {
        opened = opening => opened?,
        signal = signals.next() => return Ok(Exit::of_signal(signal.as_raw())),
    };
    let running = Running::new(context.printer, &prepared, (opened, client));
    let heartbeat = running.keep_alive();
    let result = running.command(args, &mut signals).await;
    heartbeat.abort();
    running.close().await;
    result
}

/// A session with a command in it.
struct Running {
    printer: Printer,
    target: Target,
    session_id: String,
    token: SessionToken,
    /// Replaced when the certificate is renewed.
    client: Sender<AgentServiceClient<Channel>>,
    certificate: Option<Thumbprint>,
}

impl Running {
    fn new(
        printer: Printer,
        prepared: &Prepared<'_>,
        (opened, client): (SessionView, AgentServiceClient<Channel>),
    ) -> Self {
        printer.note(&format!("session {} until {}", opened.session_id, opened.ends_at));
        Self {
            printer,
            target: prepared.target().clone(),
            session_id: opened.session_id,
            token: SessionToken::new(opened.session_token),
            client: Sender::new(client),
            certificate: prepared.certificate(),
        }
    }

    fn client(&self) -> AgentServiceClient<Channel> {
        self.client.borrow().clone()
    }

    fn keep_alive(&self) -> tokio::task::JoinHandle<()> {
        let printer = self.printer;
        let held = Held {
            target: self.target.clone(),
            token: SessionToken::new(self.token.expose()),
            client: self.client.clone(),
            certificate: self.certificate,
        };
        tokio::spawn(async move {
            let tell = |news: &watch::News| {
                if let Some(sentence) = news.sentence() {
                    printer.note(&sentence);
                }
            };
            if let Err(failure) = held.hold(tell).await {
                printer.note(&format!("the heartbeat is lost: {}", failure.sentence));
            }
        })
    }

    async fn command(&self, args: &RunArgs, signals: &mut Signals) -> Result<Exit, Failure> {
        let inherited = std::env::vars_os().map(|(name, _)| name);
        let mut environment = Environment::scrubbed(inherited, &args.kept);
        environment.add(environment::of_session(&self.target, &self.session_id, &self.token));
        tokio::select! {
            issued = self.grants(args, &mut environment) => issued?,
            signal = signals.next() => return Ok(Exit::of_signal(signal.as_raw())),
        }
        child::run(&args.command, &environment, signals).await
    }

    async fn grants(&self, args: &RunArgs, environment: &mut Environment) -> Result<(), Failure> {
        for scope in &args.grants {
            let order = issue::Order {
                scope: scope.clone(),
                ttl: args.ttl,
                reason: args.reason.clone(),
                key: None,
            };
            let issued = issue::mint(&mut self.client(), &self.token, order).await?;
            issue::tell_notice(self.printer, &issued);
            environment.grant(scope, &issued.credential)?;
            self.printer.note(&format!(
                "lease {} of {scope} until {}",
                issued.lease.lease_id, issued.lease.expires_at
            ));
        }
        Ok(())
    }

    /// The command's exit code counts, not the goodbye: without one, the session ends after its
    /// heartbeat grace.
    async fn close(&self) {
        match session::close(&mut self.client(), &self.token).await {
            Ok(0) => {}
            Ok(due) => self.printer.note(&format!("session closed; leases being revoked: {due}")),
            Err(failure) if failure.exit == Exit::EXPIRED => {}
            Err(failure) => self.printer.note(&format!(
                "the session could not be closed and ends by itself: {}",
                failure.sentence
            )),
        }
    }
}

const EXAMPLE: &str = "\
The command finds CLAVIGER_SESSION_TOKEN, CLAVIGER_SESSION_ID and the way to the broker in its
environment, and the variables of each --grant (PGHOST, PGUSER, PGPASSWORD …). Credentials that
were inherited (AWS_*, GITHUB_TOKEN, PGPASSWORD …) are taken out first; --keep NAME spares one.

Examples:
  claviger run --role support-triage --grant orders-db/readonly -- psql orders
  claviger run --role support-triage --reason TICKET-7 -- python agent.py
  claviger run --child --role order-reader --grant orders-db/readonly -- python sub_agent.py
  claviger run --role release-notes --github-actions --audience https://claviger.internal -- make notes";
