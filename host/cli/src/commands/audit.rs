//! `claviger audit`: reads, exports and verifies the journal. For operators and auditors.

mod line;
mod verify;

use std::time::SystemTime;

use clap::{Args, Subcommand};
use claviger_proto::v1::admin_service_client::AdminServiceClient;
use claviger_proto::v1::{JournalEntry, QueryJournalRequest};
use serde_json::{Value, json};
use tonic::Streaming;
use tonic::transport::Channel;

use self::line::ExportedLine;
use super::Context;
use crate::client;
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::text::{Bold, Table};

/// The commands on the journal.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// The newest entries
    #[command(after_help = "Example:\n  claviger audit tail --follow --role support-triage")]
    Tail(TailArgs),
    /// Entries that match
    #[command(after_help = QUERY_EXAMPLE)]
    Query(QueryArgs),
    /// Every entry with its hashes, one JSON object a line
    #[command(
        after_help = "Example:\n  claviger audit export > journal.jsonl && claviger audit verify journal.jsonl"
    )]
    Export(RangeArgs),
    /// Recompute the chain: is every entry there, unchanged and in order?
    #[command(after_help = verify::EXAMPLE)]
    Verify(verify::VerifyArgs),
}

/// Which entries, by what they are about.
#[derive(Args)]
pub struct FilterArgs {
    /// Only entries of this session
    #[arg(long, value_name = "SESSION-ID")]
    session: Option<String>,
    /// Only entries of this lease
    #[arg(long, value_name = "LEASE-ID")]
    lease: Option<String>,
    /// Only the entry of this refusal
    #[arg(long, value_name = "DENIAL-ID")]
    denial: Option<String>,
    /// Only entries of this role
    #[arg(long)]
    role: Option<String>,
    /// Only entries for this requester, as in `unix:1000`
    #[arg(long, value_name = "ID")]
    requester: Option<String>,
    /// Only entries of this workload, as in `spiffe://example.org/agent`
    #[arg(long, value_name = "ID")]
    workload: Option<String>,
    /// Only entries about this scope
    #[arg(long)]
    scope: Option<String>,
    /// Only entries of this kind, such as `denied`
    #[arg(long)]
    event: Option<String>,
    /// Only what was decided so
    #[arg(long, value_parser = ["permit", "deny"])]
    decision: Option<String>,
    /// Only refusals with this code
    #[arg(long)]
    code: Option<String>,
    /// Only what this policy snapshot decided
    #[arg(long, value_name = "DIGEST")]
    snapshot: Option<String>,
    /// Only entries of sessions that began with this prompt file
    #[arg(long, value_name = "DIGEST")]
    prompt: Option<String>,
    /// Only what happened at the word of this operator
    #[arg(long, value_name = "ID")]
    operator: Option<String>,
    /// Only this action of operators, such as `admin::revoke`
    #[arg(long)]
    action: Option<String>,
    /// Only from this moment on, as in `2026-11-23T12:00:00Z` or `2h` ago
    #[arg(long, value_name = "WHEN", value_parser = parse_moment)]
    since: Option<SystemTime>,
    /// Only before this moment
    #[arg(long, value_name = "WHEN", value_parser = parse_moment)]
    before: Option<SystemTime>,
}

/// Which entries, by their numbers.
#[derive(Args)]
pub struct RangeArgs {
    /// The first entry wanted
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// The last entry wanted [default: the newest]
    #[arg(long, value_name = "SEQ")]
    to: Option<u64>,
}

/// The newest entries.
#[derive(Args)]
pub struct TailArgs {
    /// What they are about.
    #[command(flatten)]
    filter: FilterArgs,
    /// How many
    #[arg(long, default_value_t = TAIL_DEFAULT, value_name = "N")]
    last: u64,
    /// Go on with what is recorded from now on
    #[arg(long, short)]
    follow: bool,
}

/// Entries that match.
#[derive(Args)]
pub struct QueryArgs {
    /// What they are about.
    #[command(flatten)]
    filter: FilterArgs,
    /// Their numbers.
    #[command(flatten)]
    range: RangeArgs,
    /// At most so many, the newest of those that match
    #[arg(long, value_name = "N")]
    last: Option<u64>,
}

/// Runs one of them.
pub async fn run(context: &Context, command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Tail(args) => tail(context, args).await?,
        AuditCommand::Query(args) => {
            let mut journal = Journal::open(context).await?;
            let range = QueryJournalRequest {
                from_seq: args.range.from,
                to_seq: args.range.to.unwrap_or(0),
                last: args.last.unwrap_or(0),
                ..args.filter.request()
            };
            journal.show(range).await?;
        }
        AuditCommand::Export(range) => export(context, &range).await?,
        AuditCommand::Verify(args) => return verify::run(context, &args).await,
    }
    Ok(Exit::OK)
}

impl FilterArgs {
    fn request(self) -> QueryJournalRequest {
        QueryJournalRequest {
            session_id: self.session.unwrap_or_default(),
            lease_id: self.lease.unwrap_or_default(),
            denial_id: self.denial.unwrap_or_default(),
            role: self.role.unwrap_or_default(),
            requester: self.requester.unwrap_or_default(),
            principal: self.workload.unwrap_or_default(),
            scope: self.scope.unwrap_or_default(),
            event: self.event.unwrap_or_default(),
            decision: self.decision.unwrap_or_default(),
            code: self.code.unwrap_or_default(),
            snapshot: self.snapshot.unwrap_or_default(),
            prompt_digest: self.prompt.unwrap_or_default(),
            operator: self.operator.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            since: self.since.map(prost_types::Timestamp::from),
            before: self.before.map(prost_types::Timestamp::from),
            ..QueryJournalRequest::default()
        }
    }
}

/// A moment, or how long ago it was.
fn parse_moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(|| "that is too long ago".to_owned());
    }
    humantime::parse_rfc3339_weak(text).map_err(|error| {
        format!("{error}: write `2026-11-23T12:00:00Z`, or `2h` for two hours ago")
    })
}

/// The broker's journal, as a command reads it.
struct Journal {
    client: AdminServiceClient<Channel>,
    printer: Printer,
    is_json: bool,
}

impl Journal {
    async fn open(context: &Context) -> Result<Self, Failure> {
        let is_json = context.printer.is_json()?;
        let client = client::admin(&context.connection).await?;
        Ok(Self { client, printer: context.printer, is_json })
    }

    /// Prints what matches.
    async fn show(&mut self, request: QueryJournalRequest) -> Result<(), Failure> {
        let mut entries = query(&mut self.client, request).await?;
        let mut table = Table::new(&HEADINGS);
        while let Some(entry) = entries.message().await? {
            let content = content(&entry);
            if self.is_json {
                self.printer.json(&json!({ "seq": entry.seq, "entry": content }))?;
            } else {
                add_row(&mut table, entry.seq, &content);
            }
        }
        if self.is_json || table.is_empty() { Ok(()) } else { self.printer.table(&table) }
    }
}

/// The newest first, and with `--follow` the broker goes on telling: one question, one entry.
async fn tail(context: &Context, args: TailArgs) -> Result<(), Failure> {
    let mut journal = Journal::open(context).await?;
    let filter = args.filter.request();
    if !args.follow {
        return journal.show(QueryJournalRequest { last: args.last, ..filter }).await;
    }
    let request = QueryJournalRequest { last: args.last, follow: true, ..filter };
    let mut entries = query(&mut journal.client, request).await?;
    let mut headed = false;
    while let Some(entry) = entries.message().await? {
        let content = content(&entry);
        if journal.is_json {
            journal.printer.json(&json!({ "seq": entry.seq, "entry": content }))?;
            continue;
        }
        let mut table = Table::new(&HEADINGS);
        add_row(&mut table, entry.seq, &content);
        let text = table.render(Bold::Plain);
        let shown = if headed { text.split_once('\n').map_or("", |(_, row)| row) } else { &text };
        journal.printer.text(shown)?;
        headed = true;
    }
    Ok(())
}

async fn export(context: &Context, range: &RangeArgs) -> Result<(), Failure> {
    let mut client = client::admin(&context.connection).await?;
    let request = QueryJournalRequest {
        from_seq: range.from,
        to_seq: range.to.unwrap_or(0),
        ..QueryJournalRequest::default()
    };
    let mut entries = query(&mut client, request).await?;
    while let Some(entry) = entries.message().await? {
        context.printer.json(&ExportedLine::from(entry))?;
    }
    Ok(())
}

/// Asks for journal entries. There is no deadline: an export may take as long as it is read.
pub async fn query(
    client: &mut AdminServiceClient<Channel>,
    request: QueryJournalRequest,
) -> Result<Streaming<JournalEntry>, Failure> {
    Ok(client.query_journal(request).await?.into_inner())
}

/// The entry as JSON. A newer broker may know more fields than this command: all are kept. What
/// is no JSON is shown as the text that it is; `verify` tells whether it was changed.
pub fn content(entry: &JournalEntry) -> Value {
    serde_json::from_str(&entry.json).unwrap_or_else(|_| Value::String(entry.json.clone()))
}

/// A field of an entry as text; empty if absent.
pub fn field<'a>(content: &'a Value, name: &str) -> &'a str {
    content.get(name).and_then(Value::as_str).unwrap_or("")
}

fn add_row(table: &mut Table, seq: u64, content: &Value) {
    let subject = [field(content, "lease"), field(content, "intent"), field(content, "denial")];
    let subject = subject.into_iter().find(|id| !id.is_empty()).unwrap_or("");
    let reason = [field(content, "code"), field(content, "cause")];
    table.row([
        &seq.to_string(),
        field(content, "at"),
        field(content, "event"),
        field(content, "role"),
        field(content, "session"),
        field(content, "scope"),
        subject,
        reason.into_iter().find(|text| !text.is_empty()).unwrap_or(""),
    ]);
}

const HEADINGS: [&str; 8] = ["SEQ", "AT", "EVENT", "ROLE", "SESSION", "SCOPE", "ABOUT", "WHY"];

/// A screenful.
const TAIL_DEFAULT: u64 = 20;

const QUERY_EXAMPLE: &str = "\
Examples:
  claviger audit query --lease int_01jd…
  claviger audit query --role support-triage --output json | jq -r 'select(.entry.event == \"denied\").entry.detail'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_refusal_and_survives_what_is_no_entry() {
        let denied = json!({
            "at": "2026-11-23T12:00:00.000Z", "event": "denied", "role": "triage",
            "denial": "den_1", "code": "NO_PERMIT", "field_of_tomorrow": 1,
        });
        let mut table = Table::new(&HEADINGS);
        add_row(&mut table, 7, &denied);
        add_row(&mut table, 8, &Value::String("garbage".to_owned()));
        let text = table.render(Bold::Plain);
        let expect =
            "7    2026-11-23T12:00:00.000Z  denied  triage                  den_1  NO_PERMIT";
        assert_eq!(text.lines().nth(1), Some(expect), "{text}");
        assert_eq!(text.lines().nth(2), Some("8"));
    }
}
