//! SQL put together from parts: what a server reads must be the parts that went in. The tokens are
//! told apart by a lexer that shares nothing with the code that quotes.

use clavigerd::egress::sql::{Dialect, Statement};

/// Builds a statement of parts drawn from `data`, and reads it as each server would.
pub fn run(data: &[u8]) {
    let parts = parts(data);
    let expect = expected(&parts);
    let mut statement = Statement::default();
    for part in &parts {
        match part {
            Part::Text(text) => statement.text((*text).to_owned()),
            Part::Ident(name) => statement.ident(name.clone()),
            Part::Literal(value) => statement.literal(value.clone()),
        }
    }
    for (dialect, mark) in [(Dialect::Postgres, '"'), (Dialect::Mysql, '`')] {
        let Ok(rendered) = statement.render(dialect) else { continue };
        assert_eq!(tokens(rendered.as_str(), (dialect, mark)), expect, "{}", rendered.as_str());
    }
}

enum Part {
    Text(&'static str),
    Ident(String),
    Literal(String),
}

/// What a server tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Anything that is not quoted, without space.
    Bare(String),
    Ident(String),
    Literal(String),
}

/// What the parts say; texts side by side are one text.
fn expected(parts: &[Part]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut bare = String::new();
    let flush = |bare: &mut String, tokens: &mut Vec<Token>| {
        tokens.extend(bare.split_whitespace().map(|word| Token::Bare(word.to_owned())));
        bare.clear();
    };
    for part in parts {
        match part {
            Part::Text(text) => bare.push_str(text),
            Part::Ident(name) => {
                flush(&mut bare, &mut tokens);
                tokens.push(Token::Ident(name.clone()));
            }
            Part::Literal(value) => {
                flush(&mut bare, &mut tokens);
                tokens.push(Token::Literal(value.clone()));
            }
        }
    }
    flush(&mut bare, &mut tokens);
    tokens
}

/// Each part is a byte that says its kind, and what follows up to a byte 0xff.
fn parts(data: &[u8]) -> Vec<Part> {
    data.split(|byte| *byte == 0xff)
        .filter_map(|piece| {
            let (kind, rest) = piece.split_first()?;
            let value = String::from_utf8_lossy(rest).into_owned();
            Some(match kind % 3 {
                0 => Part::Text(TEXTS[usize::from(*kind) / 3 % TEXTS.len()]),
                1 => Part::Ident(value),
                _ => Part::Literal(value),
            })
        })
        .collect()
}

/// Splits SQL at white space and quotation marks: the lexical rules of the server's manual.
fn tokens(sql: &str, (dialect, ident_mark): (Dialect, char)) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_whitespace() {
            rest = &rest[1..];
        } else if first == '\'' || first == ident_mark {
            let (value, after) = quoted(&rest[1..], first);
            let token = if first == '\'' { Token::Literal(value) } else { Token::Ident(value) };
            tokens.push(token);
            rest = after;
        } else {
            let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '\'' || c == ident_mark);
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            // A prefix right at a quotation mark changes how the value is read: `E'\''`, `U&"…"`.
            // MySQL's `@` alone stands right before the host of an account.
            let touches = after.starts_with(['\'', ident_mark]);
            let at = dialect == Dialect::Mysql && word.ends_with('@');
            assert!(!touches || at, "`{word}` touches what is quoted");
            tokens.push(Token::Bare(word.to_owned()));
            rest = after;
        }
    }
    tokens
}

/// What stands up to the closing mark, and what follows it.
fn quoted(text: &str, mark: char) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(mark).expect("a quotation mark is never closed");
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(after) = rest.strip_prefix(mark) else { return (value, rest) };
        value.push(mark);
        rest = after;
    }
}

/// What authors write between values, with every prefix that changes how a string is read.
const TEXTS: [&str; 16] = [
    "SELECT", " SELECT ", "E", " e", "U&", "N", "x", "B", "_utf8mb4", ",", "=", "||", "@", "$$",
    ";", "",
];
