//! `claviger audit verify`: recomputes the chain from the lines alone, so that an auditor has to
//! trust neither the broker nor its store. Trusts no hash that it is told.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use clap::Args;
use claviger_core::journal::JournalSeq;
use claviger_core::journal::chain::{ChainHead, ChainVerifier, EntryHash};
use claviger_proto::v1::{JournalHeadRequest, JournalHeadResponse, QueryJournalRequest};
use serde_json::json;

use super::line::ExportedLine;
use super::{Context, query};
use crate::client;
use crate::exit::{Exit, Failure};

/// What to verify, and against what.
#[derive(Args)]
pub struct VerifyArgs {
    /// A file that `audit export` wrote from entry 1 on, or `-` for stdin [default: ask the broker]
    file: Option<String>,
    /// A head kept from an earlier run, as it was printed; repeatable
    #[arg(long = "expect", value_name = "SEQ:HASH", value_parser = parse_head)]
    expected: Vec<ChainHead>,
}

/// Verifies and prints the head. Exit code 1 if anything is not as it was recorded.
pub async fn run(context: &Context, args: &VerifyArgs) -> Result<Exit, Failure> {
    let is_json = context.printer.is_json()?;
    let mut check = Check::new(&args.expected);
    let outcome = match args.file.as_deref() {
        None => of_broker(context, &mut check).await?,
        Some("-") => of_lines(io::stdin().lock(), &mut check)?,
        Some(path) => {
            let file = File::open(path).map_err(|error| Failure::unreadable(path, &error))?;
            of_lines(BufReader::new(file), &mut check)?
        }
    };
    let outcome = outcome.and_then(|()| check.finish());
    let head = check.head;
    let shown = show_head(&head);
    match (&outcome, is_json) {
        (_, true) => context.printer.json(&json!({
            "intact": outcome.is_ok(), "entries_verified": head.seq.get(), "head": shown,
            "problem": outcome.as_ref().err(),
        }))?,
        (Ok(()), false) => context.printer.text(&format!(
            "intact: {} entries, none changed, removed, inserted or moved\nhead: {shown}\n",
            head.seq
        ))?,
        (Err(problem), false) => context.printer.text(&format!(
            "BROKEN: {problem}\nintact before that: {} entries, head {shown}\n",
            head.seq
        ))?,
    }
    if outcome.is_ok() && args.expected.is_empty() {
        context.printer.note(
            "keep the head: `--expect SEQ:HASH` then proves that nothing up to it was rewritten",
        );
    }
    Ok(if outcome.is_ok() { Exit::OK } else { Exit::FAILURE })
}

/// What is wrong with the journal, as a sentence.
type Problem = String;

/// The chain as far as it was followed, and the heads that must lie on it.
struct Check {
    verifier: ChainVerifier,
    head: ChainHead,
    awaited: Vec<ChainHead>,
}

impl Check {
    fn new(expected: &[ChainHead]) -> Self {
        Self { verifier: ChainVerifier::new(), head: ChainHead::EMPTY, awaited: expected.to_vec() }
    }

    fn line(&mut self, line: &ExportedLine) -> Result<(), Problem> {
        let recorded = line.recorded()?;
        self.verifier.check(&recorded).map_err(|error| error.to_string())?;
        self.head = ChainHead { seq: recorded.seq, hash: recorded.hash };
        let head = self.head;
        if let Some(other) = self.awaited.iter().find(|kept| kept.seq == head.seq && **kept != head)
        {
            return Err(format!(
                "entry {} has hash {} where {} was expected: the chain was rewritten up to there",
                head.seq, head.hash, other.hash
            ));
        }
        self.awaited.retain(|kept| *kept != head);
        Ok(())
    }

    /// Every expected head must have been met.
    fn finish(&self) -> Result<(), Problem> {
        match self.awaited.iter().find(|kept| kept.seq.get() > 0) {
            None => Ok(()),
            Some(kept) => Err(format!(
                "entry {} was expected, but the journal ends at entry {}: its end was cut off",
                kept.seq, self.head.seq
            )),
        }
    }
}

/// The head first: entries recorded meanwhile then lie beyond what is asked for.
async fn of_broker(context: &Context, check: &mut Check) -> Result<Result<(), Problem>, Failure> {
    let mut client = client::admin(&context.connection).await?;
    let head = client.journal_head(client::call(JournalHeadRequest {})).await?.into_inner();
    let sealed = match sealed_head(&head) {
        Ok(sealed) => sealed,
        Err(problem) => return Ok(Err(problem)),
    };
    if sealed.seq.get() > 0 {
        let request = QueryJournalRequest { to_seq: head.seq, ..QueryJournalRequest::default() };
        let mut entries = query(&mut client, request).await?;
        while let Some(entry) = entries.message().await? {
            if let Err(problem) = check.line(&ExportedLine::from(entry)) {
                return Ok(Err(problem));
            }
        }
    }
    Ok(check.verifier.clone().finish(&sealed).map_err(|error| error.to_string()))
}

fn sealed_head(head: &JournalHeadResponse) -> Result<ChainHead, Problem> {
    if !head.seal_intact {
        return Err(format!(
            "the seal of the head (entry {}) is broken: something but the broker changed it",
            head.seq
        ));
    }
    let hash: [u8; 32] = head.hash.as_slice().try_into().map_err(|_| {
        format!("the broker's head is no SHA-256 hash: it has {} bytes", head.hash.len())
    })?;
    Ok(ChainHead { seq: JournalSeq::durable(head.seq), hash: EntryHash::from_bytes(hash) })
}

fn of_lines(mut lines: impl BufRead, check: &mut Check) -> Result<Result<(), Problem>, Failure> {
    for number in 1_u64.. {
        let Some(text) = next_line(&mut lines)? else { break };
        let line = serde_json::from_slice::<ExportedLine>(&text)
            .map_err(|error| format!("line {number} is not a line of an export: {error}"));
        if let Err(problem) = line.and_then(|line| check.line(&line)) {
            return Ok(Err(problem));
        }
    }
    Ok(Ok(()))
}

/// The next line that is not empty, if there is one.
fn next_line(lines: &mut impl BufRead) -> Result<Option<Vec<u8>>, Failure> {
    let mut text = Vec::new();
    let read = lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
    let read =
        read.map_err(|error| Failure::other(format!("the export cannot be read: {error}")))?;
    if u64::try_from(read).is_ok_and(|read| read == LINE_BYTES_MAX) {
        return Err(Failure::other(format!(
            "a line is longer than {LINE_BYTES_MAX} bytes: no export"
        )));
    }
    Ok(if read == 0 { None } else { Some(text) })
}

fn show_head(head: &ChainHead) -> String {
    format!("{}:{}", head.seq, head.hash)
}

fn parse_head(text: &str) -> Result<ChainHead, String> {
    let wrong = || "it takes `SEQ:HASH` as `audit verify` prints it".to_owned();
    let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
    let seq = JournalSeq::durable(seq.parse().map_err(|_| wrong())?);
    let hash = hash.parse().map_err(|error| format!("{error}"))?;
    Ok(ChainHead { seq, hash })
}

/// Many times the largest entry that the broker writes; keeps a stray binary file out of memory.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Shown under `--help`.
pub const EXAMPLE: &str = "\
Without FILE the broker is asked for entries and head, and the head's seal is checked. With FILE
no broker is needed. Exit code 1 if anything was changed, removed, inserted or moved.

Examples:
  claviger audit verify
  claviger audit verify journal.jsonl --expect 1042:9f2c…";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

    use super::*;
    use claviger_proto::v1::JournalEntry;

    fn export(jsons: &[&str]) -> (Vec<String>, Vec<ChainHead>) {
        let mut head = ChainHead::EMPTY;
        let mut heads = Vec::new();
        let mut lines = Vec::new();
        for json in jsons {
            let next = head.extended(json.as_bytes());
            let line = ExportedLine::from(JournalEntry {
                seq: next.seq.get(),
                previous_hash: head.hash.bytes().to_vec(),
                hash: next.hash.bytes().to_vec(),
                json: (*json).to_owned(),
            });
            lines.push(serde_json::to_string(&line).unwrap());
            heads.push(next);
            head = next;
        }
        (lines, heads)
    }

    fn verified(lines: &[String], expected: &[ChainHead]) -> Result<u64, Problem> {
        let mut check = Check::new(expected);
        of_lines(io::Cursor::new(lines.join("\n")), &mut check).unwrap()?;
        check.finish()?;
        Ok(check.head.seq.get())
    }

    const ENTRIES: [&str; 4] = [r#"{"a": "ü\n"}"#, "{}", r#"{"c":3}"#, "{}"];

    #[test]
    fn an_export_verifies_as_it_was_written() {
        let (lines, heads) = export(&ENTRIES);
        assert_eq!(verified(&lines, &heads), Ok(4));
        assert_eq!(verified(&[], &[]), Ok(0));
    }

    fn check(attack: impl FnOnce(&mut Vec<String>), expect: &str) {
        let (mut lines, heads) = export(&ENTRIES);
        attack(&mut lines);
        let problem = verified(&lines, &heads[3..]).unwrap_err();
        assert!(problem.contains(expect), "{problem}");
    }

    #[test]
    fn says_which_entry_is_not_as_recorded() {
        check(|lines| lines[2] = lines[2].replace('3', "4"), "entry 3 is missing");
        check(|lines| lines[2] = lines[2].replace(":3}", ":4}"), "entry 3 was changed");
        check(|lines| drop(lines.remove(1)), "entry 2 is missing");
        check(|lines| lines.swap(1, 2), "entry 2 is missing");
        check(|lines| lines.insert(1, lines[0].clone()), "entry 1 stands where entry 2 belongs");
        check(|lines| drop(lines.pop()), "entry 4 was expected, but the journal ends at entry 3");
        check(|lines| lines[1] = "{}".to_owned(), "line 2 is not a line of an export");
        check(|lines| *lines = export(&["x", "y", "z", "w"]).0, "the chain was rewritten");
    }

    #[test]
    fn a_head_without_its_seal_is_a_problem() {
        let head = |hash: Vec<u8>, seal_intact| JournalHeadResponse { seq: 9, hash, seal_intact };
        assert!(sealed_head(&head(vec![1; 32], true)).is_ok());
        assert!(sealed_head(&head(vec![1; 32], false)).unwrap_err().contains("seal"));
        assert!(sealed_head(&head(vec![1; 31], true)).is_err());
    }

    #[test]
    fn a_head_reads_back_as_it_was_printed() {
        let head = export(&ENTRIES).1[2];
        assert_eq!(parse_head(&show_head(&head)), Ok(head));
        for text in ["", "3", "3:abc", "x:00"] {
            assert!(parse_head(text).is_err(), "{text}");
        }
    }
}
