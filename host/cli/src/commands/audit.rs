//! `claviger audit`: reads, exports and verifies the journal. For operators and auditors.

mod line;
mod verify;

use std::time::Duration;

use clap::{Args, Subcommand};
use claviger_proto::v1::admin_service_client::AdminServiceClient;
use claviger_proto::v1::{JournalEntry, JournalHeadRequest, QueryJournalRequest};
use serde_json::{Value, json};
use tonic::Streaming;
use tonic::transport::Channel;

use self::line::ExportedLine;
use super::Context;
use crate::client;
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::text::Table;

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
            ..QueryJournalRequest::default()
        }
    }
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

    /// Prints what matches and returns the number of the last entry printed.
    async fn show(&mut self, request: QueryJournalRequest) -> Result<Option<u64>, Failure> {
        let mut entries = query(&mut self.client, request).await?;
        let mut table = Table::new(&HEADINGS);
        let mut last = None;
        while let Some(entry) = entries.message().await? {
            last = Some(entry.seq);
            let content = content(&entry);
            if self.is_json {
                self.printer.json(&json!({ "seq": entry.seq, "entry": content }))?;
            } else {
                add_row(&mut table, entry.seq, &content);
            }
        }
        if !self.is_json && last.is_some() {
            self.printer.table(&table)?;
        }
        Ok(last)
    }

    async fn head_seq(&mut self) -> Result<u64, Failure> {
        let answer = self.client.journal_head(client::call(JournalHeadRequest {})).await?;
        Ok(answer.into_inner().seq)
    }
}

async fn tail(context: &Context, args: TailArgs) -> Result<(), Failure> {
    let mut journal = Journal::open(context).await?;
    let filter = args.filter.request();
    let head = journal.head_seq().await?;
    journal.show(QueryJournalRequest { last: args.last, to_seq: head, ..filter.clone() }).await?;
    let mut next = head.saturating_add(1);
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let more = QueryJournalRequest { from_seq: next, ..filter.clone() };
        if let Some(last) = journal.show(more).await? {
            next = last.saturating_add(1);
        }
    }
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

/// Soon enough for somebody who looks on, seldom enough to be no load: one indexed read.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

const QUERY_EXAMPLE: &str = "\
Examples:
  claviger audit query --lease int_01jd…
  claviger audit query --role support-triage --output json | jq -r 'select(.entry.event == \"denied\").entry.detail'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Bold;

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
