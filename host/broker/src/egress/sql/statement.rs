//! A statement put together from parts that the host quotes, so that no value can become syntax.

use zeroize::Zeroizing;

use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};

/// A PostgreSQL statement under construction. Parts are kept apart until it runs; the first part
/// that breaks a limit spoils it, and every use then fails with that reason.
#[derive(Default)]
pub struct Statement {
    parts: Vec<Part>,
    bytes: usize,
    fault: Option<Failure>,
}

/// SQL that came out of a statement's quoting: the only thing that a session runs.
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
    SecretLiteral(SharedSecret),
}

impl Statement {
    /// Adds literal SQL.
    pub fn text(&mut self, sql: String) {
        self.check(!sql.contains('\0'), "the text holds a NUL character");
        self.push(sql.len(), Part::Text(sql));
    }

    /// Adds an identifier.
    pub fn ident(&mut self, name: String) {
        let fits = (1..=IDENT_BYTES_MAX).contains(&name.len());
        self.check(fits, "an identifier takes 1 to 63 bytes");
        self.check(!name.contains('\0'), "an identifier holds a NUL character");
        self.push(name.len(), Part::Ident(name));
    }

    /// Adds a string literal.
    pub fn literal(&mut self, value: String) {
        self.check(value.len() <= LITERAL_BYTES_MAX, "a literal takes at most 8 KiB");
        self.check(!value.contains('\0'), "a literal holds a NUL character");
        self.push(value.len(), Part::Literal(value));
    }

    /// Adds a verifier as a string literal. INVARIANT (no-plain-secret-in-sql): PostgreSQL shows
    /// the text of running statements to its administrators (`pg_stat_activity`, logs), and any
    /// expression can hand a literal back as a row, an error or a row count. A plugin, which
    /// holds such a connection, could read a secret that was sent; so only a verifier ever is.
    pub fn verifier(&mut self, verifier: SharedSecret) {
        self.push(verifier.len(), Part::SecretLiteral(verifier));
    }

    /// Makes every use fail with `failure`, unless it already does.
    pub fn spoil(&mut self, failure: Failure) {
        self.fault.get_or_insert(failure);
    }

    /// The SQL to send, quoted for PostgreSQL with `standard_conforming_strings = on`, where a
    /// backslash in `'…'` is an ordinary character.
    ///
    /// A space stands on both sides of every quoted part: two literals side by side would merge
    /// into one with a quote inside, and a text that ends in `E` would turn a literal into an
    /// escape string.
    pub fn render(&self) -> Result<Rendered, Failure> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        // Room for every character doubled, so that the growing string leaves no copy behind.
        let capacity = self.bytes * 2 + self.parts.len() * QUOTES_BYTES;
        let mut sql = Zeroizing::new(String::with_capacity(capacity));
        for part in &self.parts {
            match part {
                Part::Text(text) => sql.push_str(text),
                Part::Ident(name) => quote(&mut sql, '"', name),
                Part::Literal(value) => quote(&mut sql, '\'', value),
                Part::SecretLiteral(value) => quote(&mut sql, '\'', value),
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

fn quote(sql: &mut String, mark: char, value: &str) {
    sql.push(' ');
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

/// PostgreSQL's own limit (NAMEDATALEN − 1): it would cut a longer name silently.
const IDENT_BYTES_MAX: usize = 63;

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
    use super::*;

    fn check(build: impl Fn(&mut Statement), expect: Result<&str, &str>) {
        let mut statement = Statement::default();
        build(&mut statement);
        let rendered = statement.render();
        let rendered = rendered.as_ref().map(|sql| sql.as_str()).map_err(|f| f.message.as_str());
        assert_eq!(rendered, expect);
    }

    #[test]
    fn quotes_every_value_and_keeps_neighbours_apart() {
        let text = |s: &mut Statement| s.text("SELECT E".into());
        check(
            |s| {
                text(s);
                s.literal(r"\'; x".into());
                s.literal("b".into());
            },
            Ok(r"SELECT E '\''; x'  'b' "),
        );
        check(|s| s.ident("a\"b".into()), Ok(r#" "a""b" "#));
    }

    #[test]
    fn what_exceeds_a_limit_spoils_the_statement() {
        check(|s| s.ident(String::new()), Err("an identifier takes 1 to 63 bytes"));
        check(|s| s.ident("x".repeat(64)), Err("an identifier takes 1 to 63 bytes"));
        check(|s| s.literal("a\0".into()), Err("a literal holds a NUL character"));
        check(|s| s.literal("x".repeat(8193)), Err("a literal takes at most 8 KiB"));
        check(|s| s.text("x".repeat(65_537)), Err("a statement takes at most 64 KiB"));
        let many = |s: &mut Statement| (0..65).for_each(|_| s.text("x".into()));
        check(many, Err("a statement takes at most 64 parts"));
        let later = |s: &mut Statement| {
            s.ident(String::new());
            s.text("SELECT 1".into());
        };
        check(later, Err("an identifier takes 1 to 63 bytes"));
    }
}
