//! One PostgreSQL connection lent for one call: runs statements within the call's deadline, and
//! returns to the pool only if the server has answered everything.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{
    CancelToken, Error, NoTls, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_stream::StreamExt;

use super::failure;
use super::session::{Rows, late, remaining, time_is_up};
use super::statement::Rendered;
use crate::egress::{Failure, FailureKind};

/// A lent connection.
pub struct Session {
    connection: Option<Object>,
    canceller: Canceller,
    /// Whether it has been reset for this call.
    reset: bool,
    /// Whether the server owes an answer; then the connection is closed instead of returned.
    owed: bool,
}

impl Session {
    pub(super) const fn new(connection: Object, canceller: Canceller) -> Self {
        Self { connection: Some(connection), canceller, reset: false, owed: false }
    }

    /// Runs one query.
    pub async fn query(&mut self, sql: &Rendered, end: Instant) -> Result<Rows, Failure> {
        let mut replies = self.run(settings(end)?, &[sql.as_str()], end).await?;
        replies.pop().unwrap_or_else(|| Ok(Rows::default()))
    }

    /// Runs the statements in one transaction.
    ///
    /// Each is its own message, so that no statement can swallow the next one's beginning; what
    /// the host adds shares messages, since each costs an answer of its own. All are sent before
    /// the first answer is read. After an error the server refuses the rest, the host's end with
    /// its `COMMIT` included, and the transaction is rolled back.
    pub async fn transaction(&mut self, all: &[Rendered], end: Instant) -> Result<(), Failure> {
        let begin = format!("{}; BEGIN", settings(end)?);
        let commit = format!("{}; COMMIT", in_time(end));
        let mut messages: Vec<_> = all.iter().map(Rendered::as_str).collect();
        messages.push(&commit);
        let replies = self.run(begin, &messages, end).await?;
        let first =
            replies.into_iter().enumerate().find_map(|(at, reply)| Some((at, reply.err()?)));
        let Some((at, failure)) = first else { return Ok(()) };
        self.roll_back(end).await;
        // After the statements comes the look at the clock.
        Err(if at == all.len() { late() } else { failure })
    }

    /// Ends a transaction that failed; a connection on which that fails is closed.
    async fn roll_back(&mut self, end: Instant) {
        self.owed = true;
        let rolled_back = timeout_at(end, self.exchange(&["ROLLBACK"], &[])).await;
        self.owed |= !matches!(rolled_back, Ok(Ok(_)));
    }

    /// INVARIANT (nothing-after-the-deadline): a statement must not take effect after its intent
    /// has timed out, or the revoke worker could look before the credential exists and find
    /// nothing to end. So the server itself ends each statement at the call's deadline
    /// (`statement_timeout` covers waits for locks too), a transaction checks the time once more
    /// before it commits, and the deadline of a call lies well before the intent timeout.
    async fn run(
        &mut self,
        prelude: String,
        messages: &[&str],
        end: Instant,
    ) -> Result<Vec<Reply>, Failure> {
        let prelude: &[&str] = if self.reset { &[&prelude] } else { &[RESET, &prelude] };
        self.owed = true;
        let answers = timeout_at(end, self.exchange(prelude, messages)).await;
        let replies = answers.map_err(|_| late())??;
        self.reset = true;
        Ok(replies)
    }

    /// Sends every message, then reads every answer. Returns those to `messages`; the host's own
    /// `prelude` must succeed.
    async fn exchange(
        &mut self,
        prelude: &[&str],
        messages: &[&str],
    ) -> Result<Vec<Reply>, Failure> {
        let Some(connection) = &self.connection else {
            return Err(Failure::unsent(FailureKind::Unavailable, "the connection is closed"));
        };
        let mut streams = Vec::with_capacity(prelude.len() + messages.len());
        for message in prelude.iter().chain(messages) {
            let stream = connection.simple_query_raw(message).await;
            streams.push(stream.map_err(|error| failure::of_statement(&error))?);
        }
        let mut replies = Vec::with_capacity(messages.len());
        for (index, stream) in streams.into_iter().enumerate() {
            match read(stream).await {
                Err(Unread::TooMuch(failure)) => return Err(failure),
                // Refused, the server refused the rest too. Cut off, it may have run all of it: the
                // messages were sent together.
                Err(Unread::Refused(error)) if index < prelude.len() => {
                    let refused = error.as_db_error().is_some();
                    return Err(if refused { unclean() } else { failure::of_statement(&error) });
                }
                Err(Unread::Refused(error)) => replies.push(Err(failure::of_statement(&error))),
                Ok(_) if index < prelude.len() => {}
                Ok(rows) => replies.push(Ok(rows)),
            }
        }
        self.owed = connection.is_closed();
        Ok(replies)
    }
}

/// What the server said to one message.
type Reply = Result<Rows, Failure>;

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.owed) {
            let token = connection.cancel_token();
            // Closes the socket; the pool opens another when it needs one. But the server looks at
            // its sockets between statements only, and a guest may have taken its timeout away.
            drop(Object::take(connection));
            tokio::spawn(self.canceller.clone().cancel(token));
        }
    }
}

/// Tells the server to end what a connection is doing, over a connection of its own.
#[derive(Clone)]
pub(super) enum Canceller {
    /// In the clear.
    Plain,
    /// As the connection itself.
    Tls(MakeRustlsConnect),
}

impl Canceller {
    async fn cancel(self, token: CancelToken) {
        let cancelled = async {
            match self {
                Self::Plain => token.cancel_query(NoTls).await,
                Self::Tls(tls) => token.cancel_query(tls).await,
            }
        };
        match timeout(CANCEL_MAX, cancelled).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "PostgreSQL was not told to end a statement"),
            Err(_) => tracing::warn!("PostgreSQL did not take the word to end a statement in time"),
        }
    }
}

enum Unread {
    Refused(Error),
    TooMuch(Failure),
}

async fn read(stream: SimpleQueryStream) -> Result<Rows, Unread> {
    let mut stream = std::pin::pin!(stream);
    let mut reply = Rows::default();
    while let Some(message) = stream.next().await {
        match message.map_err(Unread::Refused)? {
            SimpleQueryMessage::RowDescription(columns) => {
                reply.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let values = values(&row).map_err(Unread::Refused)?;
                reply.keep(values).map_err(Unread::TooMuch)?;
            }
            SimpleQueryMessage::CommandComplete(touched) => reply.touched = touched,
            _ => {}
        }
    }
    Ok(reply)
}

fn values(row: &SimpleQueryRow) -> Result<Vec<Option<String>>, Error> {
    (0..row.len()).map(|column| row.try_get(column).map(|v| v.map(str::to_owned))).collect()
}

fn settings(end: Instant) -> Result<String, Failure> {
    let millis = remaining(end).as_millis();
    if millis == 0 {
        return Err(time_is_up());
    }
    Ok(format!("SET standard_conforming_strings = on; SET statement_timeout = {millis}"))
}

/// A statement that fails, by dividing by zero, if the transaction has run past `end`. Needs no
/// rights and no language; compares the server's clock with itself only.
fn in_time(end: Instant) -> String {
    let millis = remaining(end).as_millis();
    format!(
        "SELECT 1 / (clock_timestamp() - transaction_timestamp() < interval '{millis} ms')::int"
    )
}

fn unclean() -> Failure {
    let message = "an earlier call left this connection unusable: it was closed, try again";
    Failure::unsent(FailureKind::Unavailable, message)
}

/// Nobody waits for it.
const CANCEL_MAX: Duration = Duration::from_secs(5);

/// Undoes whatever an earlier call may have set: role, settings, temporary tables, locks. Fails
/// inside a transaction that was left open, and the server then refuses all that follows.
const RESET: &str = "DISCARD ALL";
