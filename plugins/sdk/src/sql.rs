//! SQL through the connections that the operator has bound. The host quotes; a value can
//! therefore never become syntax, and the plugin never learns the password.

use crate::bindings::claviger::sql::sql::{Session, Statement};
use crate::{Error, Secret};

/// One row: each value as the server writes it in text, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// An open connection, by the name that the manifest gives it.
pub struct Connection(Session);

impl Connection {
    /// Opens a connection that the manifest requests and the operator has granted.
    pub fn open(name: &str) -> Result<Self, Error> {
        Session::open(name).map(Self)
    }

    /// The host that clients should connect to.
    pub fn host(&self) -> String {
        self.0.host()
    }

    /// The port that clients should connect to.
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// The database of the connection.
    pub fn database(&self) -> String {
        self.0.database()
    }

    /// Runs one statement and tells how many rows it touched.
    pub fn execute(&self, statement: &Sql) -> Result<u64, Error> {
        self.0.execute(&statement.0)
    }

    /// Runs the statements in one transaction: all take effect, or none. PostgreSQL takes them in
    /// one round trip. MySQL commits before and after each one that defines something (`CREATE`,
    /// `ALTER`, `DROP`, `GRANT`), so for those it promises nothing there.
    pub fn transaction(&self, statements: &[Sql]) -> Result<(), Error> {
        let statements: Vec<_> = statements.iter().map(|statement| &statement.0).collect();
        self.0.transaction(&statements)
    }

    /// Runs one query and reads all of its rows: at most 1,000, and 256 KiB.
    pub fn query(&self, statement: &Sql) -> Result<Vec<Row>, Error> {
        let rows = self.0.query(&statement.0)?;
        let mut all = Vec::new();
        loop {
            let mut page = rows.next_page(PAGE_ROWS);
            if page.is_empty() {
                return Ok(all);
            }
            all.append(&mut page);
        }
    }
}

/// A statement put together from parts that the host quotes.
///
/// ```no_run
/// # use claviger_plugin_sdk::{sql::Sql, Secret};
/// # fn sql(name: &str, secret: &Secret) -> Sql {
/// Sql::new("CREATE ROLE ").ident(name).text(" LOGIN PASSWORD ").scram_sha256(secret, 1)
/// # }
/// ```
#[must_use]
pub struct Sql(Statement);

impl Sql {
    /// A statement that begins with this text.
    pub fn new(text: &'static str) -> Self {
        Self(Statement::new()).text(text)
    }

    /// Adds SQL that stands in the plugin's source. Values cannot come in here: they do not
    /// live as long as the program.
    pub fn text(self, text: &'static str) -> Self {
        self.0.text(text);
        self
    }

    /// Adds an identifier: 1 to 63 bytes, on MySQL 1 to 64 characters.
    pub fn ident(self, name: &str) -> Self {
        self.0.ident(name);
        self
    }

    /// Adds a string literal: at most 8 KiB.
    pub fn literal(self, value: &str) -> Self {
        self.0.literal(value);
        self
    }

    /// Adds a number, for the places where SQL takes no string.
    pub fn number(self, number: u64) -> Self {
        self.0.text(&number.to_string());
        self
    }

    /// Adds the secret's SCRAM-SHA-256 verifier as a string literal, so that the secret itself
    /// never travels. One iteration is sound for a [`Secret::generate`]d one.
    pub fn scram_sha256(self, secret: &Secret, iterations: u32) -> Self {
        self.0.scram_sha256(secret, iterations);
        self
    }

    /// Adds the `mysql_native_password` verifier of a [`Secret::generate`]d secret as a string
    /// literal, so that the secret itself never travels. For MySQL and MariaDB only.
    pub fn mysql_native(self, secret: &Secret) -> Self {
        self.0.mysql_native(secret);
        self
    }
}

/// How many rows cross into the guest at a time: most answers fit one page, and a page of wide
/// rows (256 KiB is the whole answer's limit) stays far below the guest's memory.
const PAGE_ROWS: u32 = 250;
