//! Attacks the host's quoting: sends quote-laden values through `literal` and `ident` and looks
//! whether they come back as they went. What the server did not take literally stands in the
//! error that it then returns.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind, Lease};

struct Injector;

claviger_plugin_sdk::export!(Hostile<Injector>, manifest = "query.json");

impl Attack for Injector {
    fn run(request: &Request, _: &Lease) -> Result<String, Error> {
        let admin = Connection::open("admin")?;
        let mysql = request.parameters.get("dialect").map(String::as_str) == Some("mysql");
        let mut broken = Vec::new();
        for value in VALUES.into_iter().chain(if mysql { BASIC } else { WIDE }) {
            let query = Sql::new("SELECT ").literal(value).text(" AS ").ident(value);
            // The identifier names a column that exists under that very name, or nothing.
            let named = Sql::new("SELECT ")
                .ident(value)
                .text(" FROM (SELECT ")
                .literal(value)
                .text(" AS ")
                .ident(value)
                .text(") AS t");
            for (how, sql) in [("literal", query), ("ident", named)] {
                match admin.query(&sql) {
                    Ok(rows) if rows == [[Some(value.to_owned())]] => {}
                    Ok(rows) => broken.push(format!("{how} {value:?} became {rows:?}")),
                    Err(error) => broken.push(format!("{how} {value:?}: {}", error.message)),
                }
            }
        }
        let ident_chars = if mysql { 65 } else { 64 };
        refused(&admin, ident_chars, &mut broken);
        if mysql {
            taken_for_a_prefix(&admin, &mut broken);
            let wide = Sql::new("SELECT 1 AS ").ident("\u{1f511}");
            if !admin.query(&wide).is_err_and(|e| e.kind == ErrorKind::InvalidInput) {
                broken.push("a name that MySQL cannot keep was sent".to_owned());
            }
        }
        if broken.is_empty() {
            return Ok("every value came back as it went".to_owned());
        }
        Err(Error::new(ErrorKind::Other, broken.join("\n")))
    }
}

/// What no quoting can save must be refused before it reaches the server.
fn refused(admin: &Connection, ident_chars: usize, broken: &mut Vec<String>) {
    let too_long = "x".repeat(ident_chars);
    let nul = "a\0'; SELECT 1; --";
    for (how, sql) in [
        ("NUL in a literal", Sql::new("SELECT ").literal(nul)),
        ("NUL in an identifier", Sql::new("SELECT 1 AS ").ident(nul)),
        ("empty identifier", Sql::new("SELECT 1 AS ").ident("")),
        ("long identifier", Sql::new("SELECT 1 AS ").ident(&too_long)),
        ("long literal", Sql::new("SELECT ").literal(&"y".repeat(8 * 1024 + 1))),
        ("parts without end", (0..65).fold(Sql::new("SELECT "), |sql, _| sql.literal("z"))),
        ("text without end", (0..9).fold(Sql::new("--"), |sql, _| sql.text(LONG_TEXT))),
    ] {
        match admin.query(&sql) {
            Err(error) if error.kind == ErrorKind::InvalidInput => {}
            Err(error) => broken.push(format!("{how}: {:?} {}", error.kind, error.message)),
            Ok(rows) => broken.push(format!("{how}: accepted, {rows:?}")),
        }
    }
}

/// Text before a value that MySQL reads as a part of it: character sets, numbers, variables.
fn taken_for_a_prefix(admin: &Connection, broken: &mut Vec<String>) {
    let injection = "' OR 1=1 -- `";
    for (how, sql) in [
        (
            "variable",
            Sql::new("SELECT COALESCE(@").ident(injection).text(", ").literal(injection).text(")"),
        ),
        ("character set", Sql::new("SELECT _utf8mb4").literal(injection)),
        ("national", Sql::new("SELECT CONCAT(n").literal(injection).text(")")),
        ("comment", Sql::new("SELECT /*!50000 1 */ + /* ").literal("*/ 1 /*").text(" */ 1")),
    ] {
        match admin.query(&sql) {
            Ok(rows) if rows == [[Some(injection.to_owned())]] => {}
            // What is no statement is refused by the server, and nothing of it runs.
            Err(error) if error.code.is_some() => {}
            other => broken.push(format!("{how}: {other:?}")),
        }
    }
}

const VALUES: [&str; 16] = [
    "`",
    "``; DROP TABLE canary; -- ``",
    "\u{bf}\u{27}; DROP TABLE canary; #",
    "plain",
    "'",
    "''",
    "\"",
    "\"\"",
    "\\",
    "\\'",
    "'; DROP TABLE canary; --",
    "\"; DROP TABLE canary; --",
    "\\'; DROP TABLE canary; --",
    "$$; DROP TABLE canary; $$",
    "E'\\x27' || U&'\\0027' $1 :x ?",
    "line\nbreak\r\t/* -- */",
];
/// Letters and quotation marks from beyond ASCII; MySQL has no names with characters above U+FFFF.
const BASIC: [&str; 1] = ["\u{fc}n\u{ef}\u{2019}\u{ff07}"];
const WIDE: [&str; 1] = ["\u{fc}n\u{ef}\u{2019}\u{ff07}\u{1f511}"];
/// An eighth of the 64 KiB that a statement may have.
const LONG_TEXT: &str = {
    const BYTES: [u8; 8 * 1024] = [b' '; 8 * 1024];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};
