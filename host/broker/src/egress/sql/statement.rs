//! A statement put together from parts that the host quotes, so that no value can become syntax.

use zeroize::Zeroizing;

use super::dialect::Dialect;
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};

/// A statement under construction. Parts are kept apart until it runs; the first part
/// that breaks a limit spoils it, and every use then fails with that reason.
#[derive(Default)]
pub struct Statement {
    parts: Vec<Part>,
    bytes: usize,
    fault: Option<Failure>,
}

/// SQL that came out of a statement's quoting for one dialect: the only thing that a session of
/// that dialect runs.
pub struct Rendered(Zeroizing<String>);

impl Rendered {
    /// The SQL, verifiers and all: for the session that runs it, and for those who attack it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

enum Part {
    Text(String),
    Ident(String),
    Literal(String),
    Verifier(Dialect, SharedSecret),
}

impl Statement {
    /// Adds literal SQL.
    pub fn text(&mut self, sql: String) {
        self.check(!sql.contains('\0'), "the text holds a NUL character");
        self.push(sql.len(), Part::Text(sql));
    }

    /// Adds an identifier.
    pub fn ident(&mut self, name: String) {
        self.check(!name.is_empty(), "an identifier is empty");
        self.check(!name.contains('\0'), "an identifier holds a NUL character");
        self.push(name.len(), Part::Ident(name));
    }

    /// Adds a string literal.
    pub fn literal(&mut self, value: String) {
        self.check(value.len() <= LITERAL_BYTES_MAX, "a literal takes at most 8 KiB");
        self.check(!value.contains('\0'), "a literal holds a NUL character");
        self.push(value.len(), Part::Literal(value));
    }

    /// Adds a verifier as a string literal; only `dialect` can store it. INVARIANT
    /// (no-plain-secret-in-sql): databases show the text of running statements to their
    /// administrators (`pg_stat_activity`, the process list, logs), and any expression can hand
    /// a literal back as a row, an error or a row count. A plugin, which holds such a connection,
    /// could read a secret that was sent; so only a verifier ever is.
    pub fn verifier(&mut self, dialect: Dialect, verifier: SharedSecret) {
        self.push(verifier.len(), Part::Verifier(dialect, verifier));
    }

    /// Makes every use fail with `failure`, unless it already does.
    pub fn spoil(&mut self, failure: Failure) {
        self.fault.get_or_insert(failure);
    }

    /// The SQL to send, quoted for `dialect` as the sessions fix it: a backslash in `'…'` is an
    /// ordinary character (`standard_conforming_strings`, `NO_BACKSLASH_ESCAPES`), and MySQL's
    /// identifiers stand in backticks, whatever `ANSI_QUOTES` says.
    ///
    /// A space stands on both sides of every quoted part: two literals side by side would merge
    /// into one with a quote inside, and a text that ends in `E` would turn a literal into an
    /// escape string.
    pub fn render(&self, dialect: Dialect) -> Result<Rendered, Failure> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        // Room for every character doubled, so that the growing string leaves no copy behind.
        let capacity = self.bytes * 2 + self.parts.len() * QUOTES_BYTES;
        let mut sql = Zeroizing::new(String::with_capacity(capacity));
        for part in &self.parts {
            match part {
                Part::Text(text) => sql.push_str(text),
                Part::Ident(name) => ident(&mut sql, dialect, name)?,
                Part::Literal(value) => quote(&mut sql, dialect, '\'', value),
                Part::Verifier(of, value) if *of == dialect => {
                    quote(&mut sql, dialect, '\'', value);
                }
                Part::Verifier(..) => return Err(foreign_verifier(dialect)),
            }
        }
        Ok(Rendered(sql))
    }

    fn push(&mut self, bytes: usize, part: Part) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.check(self.bytes <= STATEMENT_BYTES_MAX, "a statement takes at most 64 KiB");
        self.check(self.parts.len() < PARTS_MAX, "a statement takes at most 64 parts");
        if self.fault.is_none() {
            self.parts.push(part);
        }
    }

    fn check(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            self.spoil(Failure::unsent(FailureKind::InvalidInput, otherwise));
        }
    }
}

fn ident(sql: &mut String, dialect: Dialect, name: &str) -> Result<(), Failure> {
    let (mark, fits, limit) = match dialect {
        Dialect::Postgres => ('"', name.len() <= IDENT_BYTES_MAX, "1 to 63 bytes"),
        Dialect::Mysql => ('`', name.chars().count() <= IDENT_CHARS_MAX, "1 to 64 characters"),
    };
    if !fits {
        let message = format!("an identifier takes {limit}");
        return Err(Failure::unsent(FailureKind::InvalidInput, message));
    }
    // MySQL keeps names in three bytes a character and would refuse or cut such a name.
    if dialect == Dialect::Mysql && name.chars().any(|character| character > '\u{ffff}') {
        let message = "an identifier of MySQL takes characters up to U+FFFF";
        return Err(Failure::unsent(FailureKind::InvalidInput, message));
    }
    quote(sql, dialect, mark, name);
    Ok(())
}

fn quote(sql: &mut String, dialect: Dialect, mark: char, value: &str) {
    // MySQL takes the host of `user@host` right after the `@` only. Text that ends with it
    // cannot change how the quotation mark is read.
    if dialect == Dialect::Postgres || !sql.ends_with('@') {
        sql.push(' ');
    }
    sql.push(mark);
    for character in value.chars() {
        if character == mark {
            sql.push(mark);
        }
        sql.push(character);
    }
    sql.push(mark);
    sql.push(' ');
}

fn foreign_verifier(dialect: Dialect) -> Failure {
    let message = match dialect {
        Dialect::Postgres => {
            "PostgreSQL cannot store a `mysql-native` verifier: use `scram-sha256`"
        }
        Dialect::Mysql => "MySQL cannot store a `scram-sha256` verifier: use `mysql-native`",
    };
    Failure::unsent(FailureKind::InvalidInput, message)
}

/// PostgreSQL's own limit (NAMEDATALEN − 1): it would cut a longer name silently.
const IDENT_BYTES_MAX: usize = 63;

/// MySQL's own limit, which it counts in characters.
const IDENT_CHARS_MAX: usize = 64;

/// Ample for a comment or a list of names; a larger value points to misuse.
const LITERAL_BYTES_MAX: usize = 8 * 1024;

/// Bounds what one statement holds in the broker's memory.
const STATEMENT_BYTES_MAX: usize = 64 * 1024;

/// Bounds the bookkeeping of one statement.
const PARTS_MAX: usize = 64;

/// Two quotation marks and two spaces.
const QUOTES_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn check(build: impl Fn(&mut Statement), expect: Result<&str, &str>) {
        check_in(Dialect::Postgres, build, expect);
    }

    fn check_in(dialect: Dialect, build: impl Fn(&mut Statement), expect: Result<&str, &str>) {
        let mut statement = Statement::default();
        build(&mut statement);
        let rendered = statement.render(dialect);
        let rendered = rendered.as_ref().map(|sql| sql.as_str()).map_err(|f| f.message.as_str());
        assert_eq!(rendered, expect);
    }

    #[test]
    fn quotes_every_value_and_keeps_neighbours_apart() {
        let neighbours = |s: &mut Statement| {
            s.text("SELECT E".into());
            s.literal(r"\'; x".into());
            s.literal("b".into());
        };
        check(neighbours, Ok(r"SELECT E '\''; x'  'b' "));
        check_in(Dialect::Mysql, neighbours, Ok(r"SELECT E '\''; x'  'b' "));
        check(|s| s.ident("a\"`b".into()), Ok(r#" "a""`b" "#));
        check_in(Dialect::Mysql, |s| s.ident("a\"`b".into()), Ok(r#" `a"``b` "#));
        let account = |s: &mut Statement| {
            s.ident("u".into());
            s.text("@".into());
            s.literal("%".into());
        };
        check_in(Dialect::Mysql, account, Ok(" `u` @'%' "));
    }

    #[test]
    fn what_exceeds_a_limit_spoils_the_statement() {
        check(|s| s.ident(String::new()), Err("an identifier is empty"));
        check(|s| s.ident("x".repeat(64)), Err("an identifier takes 1 to 63 bytes"));
        let long = |s: &mut Statement| s.ident("ü".repeat(65));
        check_in(Dialect::Mysql, long, Err("an identifier takes 1 to 64 characters"));
        let astral = |s: &mut Statement| s.ident("\u{1f511}".into());
        let sentence = "an identifier of MySQL takes characters up to U+FFFF";
        check_in(Dialect::Mysql, astral, Err(sentence));
        check(|s| s.literal("a\0".into()), Err("a literal holds a NUL character"));
        check(|s| s.literal("x".repeat(8193)), Err("a literal takes at most 8 KiB"));
        check(|s| s.text("x".repeat(65_537)), Err("a statement takes at most 64 KiB"));
        let many = |s: &mut Statement| (0..65).for_each(|_| s.text("x".into()));
        check(many, Err("a statement takes at most 64 parts"));
        let later = |s: &mut Statement| {
            s.ident(String::new());
            s.text("SELECT 1".into());
        };
        check(later, Err("an identifier is empty"));
    }

    #[test]
    fn a_verifier_goes_only_where_it_can_be_stored() {
        let verifier = |dialect| {
            move |s: &mut Statement| {
                s.verifier(dialect, Arc::new(Zeroizing::new("v".to_owned())));
            }
        };
        check_in(Dialect::Mysql, verifier(Dialect::Mysql), Ok(" 'v' "));
        let scram = "MySQL cannot store a `scram-sha256` verifier: use `mysql-native`";
        check_in(Dialect::Mysql, verifier(Dialect::Postgres), Err(scram));
        let native = "PostgreSQL cannot store a `mysql-native` verifier: use `scram-sha256`";
        check_in(Dialect::Postgres, verifier(Dialect::Mysql), Err(native));
    }

    /// Reads one quoted part as a server does: the value, and what stands behind its end.
    fn read_quoted(sql: &str, mark: char) -> Option<(String, &str)> {
        let mut value = String::new();
        let mut rest = sql.strip_prefix(' ')?.strip_prefix(mark)?;
        loop {
            let (piece, behind) = rest.split_once(mark)?;
            value.push_str(piece);
            match behind.strip_prefix(mark) {
                Some(more) => {
                    value.push(mark);
                    rest = more;
                }
                None => return Some((value, behind)),
            }
        }
    }

    proptest! {
        #[test]
        fn no_value_reaches_beyond_its_quotes(
            literal in "([^\\x00]|['\"`\\\\$;@-]){0,40}",
            ident in "([^\\x00]|['\"`\\\\$;@-]){1,15}",
        ) {
            for (dialect, mark) in [(Dialect::Postgres, '"'), (Dialect::Mysql, '`')] {
                // What MySQL cannot keep as a name is refused, as the test above says.
                let ident = match dialect {
                    Dialect::Postgres => ident.clone(),
                    Dialect::Mysql => ident.replace(|c| c > '\u{ffff}', "x"),
                };
                let mut statement = Statement::default();
                statement.ident(ident.clone());
                statement.text(",".into());
                statement.literal(literal.clone());
                let rendered = statement.render(dialect).unwrap();
                let (name, rest) = read_quoted(rendered.as_str(), mark).unwrap();
                prop_assert_eq!(&name, &ident);
                let (value, rest) = read_quoted(rest.strip_prefix(" ,").unwrap(), '\'').unwrap();
                prop_assert_eq!(&value, &literal);
                prop_assert_eq!(rest, " ");
            }
        }
    }
}
