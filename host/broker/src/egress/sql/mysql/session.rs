//! One MySQL or MariaDB connection lent for one call: runs statements within the call's deadline,
//! and returns to the pool only if the server has answered everything.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

use super::failure;
use super::pool::{Lent, Link, Server};
use crate::egress::sql::session::{Rows, late, remaining, time_is_up, too_much};
use crate::egress::sql::statement::Rendered;
use crate::egress::{Failure, FailureKind};

/// A lent connection.
pub struct Session(Lent);

impl Session {
    pub(super) const fn new(lent: Lent) -> Self {
        Self(lent)
    }

    /// Runs one query.
    pub async fn query(&mut self, sql: &Rendered, end: Instant) -> Result<Rows, Failure> {
        self.statement(sql.as_str(), end).await
    }

    /// Runs the statements in one transaction, as far as the server keeps them in one: it commits
    /// before and after each that defines something (`CREATE`, `ALTER`, `DROP`, `GRANT`).
    pub async fn transaction(&mut self, all: &[Rendered], end: Instant) -> Result<(), Failure> {
        self.command("START TRANSACTION", end).await?;
        for (before, sql) in all.iter().enumerate() {
            if let Err(failure) = self.statement(sql.as_str(), end).await {
                // If this fails too, the connection closes and the server rolls back by itself.
                let _ = self.command("ROLLBACK", end).await;
                // It keeps what it committed on its own, even if this statement was not sent.
                return Err(Failure {
                    request_sent: failure.request_sent || before > 0,
                    ..failure
                });
            }
        }
        self.command("COMMIT", end)
            .await
            .map_err(|failure| Failure { request_sent: true, ..failure })
    }

    /// INVARIANT (nothing-after-the-deadline): a statement must not take effect after its intent
    /// has timed out. So each is told how long it may take before it is sent (MariaDB ends any
    /// statement then; MySQL ends queries and waits for locks), nothing is sent after the
    /// deadline, `COMMIT` neither, and a connection on which an answer is missing is closed,
    /// which makes the server roll back.
    async fn statement(&mut self, sql: &str, end: Instant) -> Result<Rows, Failure> {
        let mut wire = self.0.take()?;
        let Link { conn, server, .. } = wire.link()?;
        in_time(end, conn.query_drop(settings(*server, end)?)).await.map_err(unsettled)?;
        let mut rows = Rows::default();
        for message in single(*server, sql) {
            match in_time(end, read(conn, &message)).await {
                Ok(answer) => rows = answer,
                Err(Unread::Refused(failure)) => {
                    wire.settled();
                    return Err(failure);
                }
                Err(Unread::Unusable(failure)) => return Err(failure),
            }
        }
        wire.settled();
        Ok(rows)
    }

    /// Sends a command of the host's own.
    async fn command(&mut self, sql: &'static str, end: Instant) -> Result<(), Failure> {
        if remaining(end).is_zero() {
            return Err(time_is_up());
        }
        let mut wire = self.0.take()?;
        match in_time(end, wire.link()?.conn.query_drop(sql)).await {
            Ok(()) => {
                wire.settled();
                Ok(())
            }
            Err(Unread::Refused(failure)) => {
                wire.settled();
                Err(failure)
            }
            Err(Unread::Unusable(failure)) => Err(failure),
        }
    }
}

/// Why an answer was not read to its end.
enum Unread {
    /// The server said no, and owes nothing more.
    Refused(Failure),
    /// Nothing more can be said on this connection.
    Unusable(Failure),
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        let failure = failure::of_statement(&error);
        match error {
            Error::Server(_) => Self::Refused(failure),
            _ => Self::Unusable(failure),
        }
    }
}

async fn in_time<T, E: Into<Unread>>(
    end: Instant,
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, Unread> {
    match timeout_at(end, exchange).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => Err(Unread::Unusable(late())),
    }
}

/// Reads the answer row by row. What a procedure answers in several parts is read as one.
async fn read(conn: &mut Conn, sql: &str) -> Result<Rows, Unread> {
    let mut answer = conn.query_iter(sql).await?;
    let mut rows = Rows::default();
    rows.touched = answer.affected_rows();
    while let Some(mut stream) = answer.stream::<Row>().await? {
        let columns = stream.columns_ref();
        if !columns.is_empty() {
            rows.columns = columns.iter().map(|column| column.name_str().into_owned()).collect();
        }
        while let Some(row) = stream.next().await {
            rows.keep(values(row?)?).map_err(Unread::Unusable)?;
        }
    }
    if !rows.columns.is_empty() {
        rows.touched = u64::try_from(rows.rows.len()).unwrap_or(u64::MAX);
    }
    Ok(rows)
}

fn values(row: Row) -> Result<Vec<Option<String>>, Unread> {
    let text = |value: Option<Value>| match value {
        None | Some(Value::NULL) => Ok(None),
        Some(Value::Bytes(bytes)) => String::from_utf8(bytes).map(Some).map_err(|_| {
            let message = "a value is not text: convert it, such as with `HEX(…)`";
            Unread::Unusable(Failure::sent(FailureKind::InvalidInput, message))
        }),
        // The text protocol knows no other values.
        Some(_) => Err(Unread::Unusable(too_much())),
    };
    row.unwrap_raw().into_iter().map(text).collect()
}

/// What every statement runs under, whatever an earlier one has set. The quoting depends on the
/// first two: one character set, in which no character holds a quotation mark, and no escapes.
fn settings(server: Server, end: Instant) -> Result<String, Failure> {
    let left = remaining(end);
    if left.as_millis() == 0 {
        return Err(time_is_up());
    }
    let (millis, secs) = (left.as_millis(), left.as_secs().max(1));
    let bound = match server {
        Server::Mariadb => format!("max_statement_time = {:.3}", left.as_secs_f64()),
        Server::Mysql => {
            format!("max_execution_time = {millis}, innodb_lock_wait_timeout = {secs}")
        }
    };
    Ok(format!("SET NAMES utf8mb4, sql_mode = '{SQL_MODE}', lock_wait_timeout = {secs}, {bound}"))
}

/// The messages that make the server run `sql` as one statement, whatever it holds.
///
/// The driver announces that it may send several statements at once and cannot be told not to.
/// The server's own `EXECUTE IMMEDIATE` and `PREPARE` take exactly one; so `sql` travels inside.
fn single(server: Server, sql: &str) -> Vec<Zeroizing<String>> {
    let inner = Zeroizing::new(sql.replace('\'', "''"));
    match server {
        Server::Mariadb => vec![Zeroizing::new(format!("EXECUTE IMMEDIATE '{}'", *inner))],
        Server::Mysql => vec![
            Zeroizing::new(format!("PREPARE claviger FROM '{}'", *inner)),
            Zeroizing::new("EXECUTE claviger".to_owned()),
        ],
    }
}

/// The settings were not taken, so nothing of the plugin's was sent.
fn unsettled(unread: Unread) -> Failure {
    let (Unread::Refused(failure) | Unread::Unusable(failure)) = unread;
    Failure { request_sent: false, ..failure }
}

/// One reading of quoted values, and errors where the server would guess.
const SQL_MODE: &str = "NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_statement_travels_as_one_quoted_value() {
        let sql = r"SELECT 'it''s \', 1; DROP USER u";
        let quoted = r"'SELECT ''it''''s \'', 1; DROP USER u'";
        let sent = |server| single(server, sql).iter().map(|m| m.to_string()).collect::<Vec<_>>();
        assert_eq!(sent(Server::Mariadb), [format!("EXECUTE IMMEDIATE {quoted}")]);
        let prepared = format!("PREPARE claviger FROM {quoted}");
        assert_eq!(sent(Server::Mysql), [prepared, "EXECUTE claviger".to_owned()]);
    }

    #[tokio::test]
    async fn nothing_is_set_when_the_time_is_over() {
        let over = settings(Server::Mysql, Instant::now()).unwrap_err();
        assert_eq!((over.kind, over.request_sent), (FailureKind::Timeout, false));
    }
}
