//! `claviger:sql`: hands a plugin's statements to the one door for SQL.

use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Instant;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::NO_CONNECTION;
use super::generated::claviger::sql::sql::{Host, HostRows, HostSession, HostStatement};
use super::generated::claviger::types::errors::Error;
use crate::egress::redact::SharedSecret;
use crate::egress::sql::{Dialect, Rendered, Rows, Statement};
use crate::egress::{Failure, FailureKind, native, scram};
use crate::plugin::call::{Call, OpenSession, SecretHandle};

impl Host for Call {}

impl HostStatement for Call {
    async fn new(&mut self) -> Result<Resource<Statement>> {
        Ok(self.table.push(Statement::default())?)
    }

    async fn text(&mut self, statement: Resource<Statement>, sql: String) -> Result<()> {
        self.table.get_mut(&statement)?.text(sql);
        Ok(())
    }

    async fn ident(&mut self, statement: Resource<Statement>, name: String) -> Result<()> {
        self.table.get_mut(&statement)?.ident(name);
        Ok(())
    }

    async fn literal(&mut self, statement: Resource<Statement>, value: String) -> Result<()> {
        self.table.get_mut(&statement)?.literal(value);
        Ok(())
    }

    async fn scram_sha256(
        &mut self,
        statement: Resource<Statement>,
        value: Resource<SecretHandle>,
        iterations: u32,
    ) -> Result<()> {
        let secret = self.table.get(&value)?.0.clone();
        let outcome = match self.spend_iterations(iterations, &secret) {
            Ok(iterations) => verifier(secret, iterations).await,
            Err(failure) => Err(failure),
        };
        self.add_verifier(&statement, Dialect::Postgres, outcome)
    }

    async fn mysql_native(
        &mut self,
        statement: Resource<Statement>,
        value: Resource<SecretHandle>,
    ) -> Result<()> {
        let verifier = native::verifier(&self.table.get(&value)?.0).map(Arc::new);
        let message = "`mysql-native` takes secrets that `generate` made: others could be searched";
        let outcome = verifier.ok_or_else(|| Failure::unsent(FailureKind::InvalidInput, message));
        self.add_verifier(&statement, Dialect::Mysql, outcome)
    }

    async fn drop(&mut self, statement: Resource<Statement>) -> Result<()> {
        self.table.delete(statement)?;
        Ok(())
    }
}

impl HostSession for Call {
    async fn open(&mut self, name: String) -> Result<Result<Resource<OpenSession>, Error>> {
        let outcome = self.open_session(&name).await;
        let opened = match outcome {
            Ok(opened) => Ok(self.table.push(opened)?),
            Err(failure) => Err(failure),
        };
        self.used.sessions += u32::from(opened.is_ok());
        self.answer(opened)
    }

    async fn host(&mut self, session: Resource<OpenSession>) -> Result<String> {
        Ok(self.table.get(&session)?.connection.client_host.clone())
    }

    async fn port(&mut self, session: Resource<OpenSession>) -> Result<u16> {
        Ok(self.table.get(&session)?.connection.client_port)
    }

    async fn database(&mut self, session: Resource<OpenSession>) -> Result<String> {
        Ok(self.table.get(&session)?.connection.pool.database().to_owned())
    }

    async fn execute(
        &mut self,
        session: Resource<OpenSession>,
        statement: Resource<Statement>,
    ) -> Result<Result<u64, Error>> {
        let outcome = match self.ready(&session, &[statement])?.as_deref() {
            Ok([sql]) => {
                let end = self.host_end;
                self.table.get_mut(&session)?.session.execute(sql, end).await
            }
            Ok(_) => Ok(0),
            Err(failure) => Err(failure.clone()),
        };
        self.answer(outcome)
    }

    async fn transaction(
        &mut self,
        session: Resource<OpenSession>,
        statements: Vec<Resource<Statement>>,
    ) -> Result<Result<(), Error>> {
        let outcome = match self.ready(&session, &statements)? {
            Ok(all) => {
                let end = self.host_end;
                self.table.get_mut(&session)?.session.transaction(&all, end).await
            }
            Err(failure) => Err(failure),
        };
        self.answer(outcome)
    }

    async fn query(
        &mut self,
        session: Resource<OpenSession>,
        statement: Resource<Statement>,
    ) -> Result<Result<Resource<Rows>, Error>> {
        let outcome = match self.ready(&session, &[statement])?.as_deref() {
            Ok([sql]) => {
                let end = self.host_end;
                self.table.get_mut(&session)?.session.query(sql, end).await
            }
            Ok(_) => Ok(Rows::default()),
            Err(failure) => Err(failure.clone()),
        };
        let outcome = match outcome {
            Ok(rows) => Ok(self.table.push(rows)?),
            Err(failure) => Err(failure),
        };
        self.answer(outcome)
    }

    async fn drop(&mut self, session: Resource<OpenSession>) -> Result<()> {
        self.table.delete(session)?;
        self.used.sessions = self.used.sessions.saturating_sub(1);
        Ok(())
    }
}

impl HostRows for Call {
    async fn columns(&mut self, rows: Resource<Rows>) -> Result<Vec<String>> {
        Ok(self.table.get(&rows)?.columns.clone())
    }

    async fn next_page(
        &mut self,
        rows: Resource<Rows>,
        rows_max: u32,
    ) -> Result<Vec<Vec<Option<String>>>> {
        let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
        Ok(self.table.get_mut(&rows)?.next_page(rows_max))
    }

    async fn drop(&mut self, rows: Resource<Rows>) -> Result<()> {
        self.table.delete(rows)?;
        Ok(())
    }
}

impl Call {
    async fn open_session(&mut self, name: &str) -> Result<OpenSession, Failure> {
        let backend = self.backend.as_ref();
        let connection = backend.and_then(|backend| backend.sql(name)).cloned();
        let connection =
            connection.ok_or_else(|| Failure::unsent(FailureKind::Denied, NO_CONNECTION))?;
        if self.used.sessions >= SESSIONS_MAX {
            let message = "a call has at most 2 connections open at a time: drop one first";
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        let began = Instant::now();
        let session = connection.pool.lend(self.host_end).await;
        self.progress.waited_for_pool(began.elapsed());
        Ok(OpenSession { session: session?, connection })
    }

    fn add_verifier(
        &mut self,
        statement: &Resource<Statement>,
        dialect: Dialect,
        verifier: Result<SharedSecret, Failure>,
    ) -> Result<()> {
        match verifier {
            Ok(verifier) => {
                self.redactor.learn(Arc::clone(&verifier));
                self.table.get_mut(statement)?.verifier(dialect, verifier);
            }
            Err(failure) => self.table.get_mut(statement)?.spoil(failure),
        }
        Ok(())
    }

    /// Renders the statements for the session's dialect and counts them.
    fn ready(
        &mut self,
        session: &Resource<OpenSession>,
        statements: &[Resource<Statement>],
    ) -> Result<Result<Vec<Rendered>, Failure>> {
        if let Err(failure) = self.spend_statements(statements.len()) {
            return Ok(Err(failure));
        }
        let dialect = self.table.get(session)?.connection.pool.dialect();
        let mut rendered = Vec::with_capacity(statements.len());
        for statement in statements {
            match self.table.get(statement)?.render(dialect) {
                Ok(sql) => rendered.push(sql),
                Err(failure) => return Ok(Err(failure)),
            }
        }
        // From here on the server may act, whatever becomes of this call.
        self.progress.sending();
        Ok(Ok(rendered))
    }

    /// A verifier comes back in rows. Of a value that somebody else chose it must not be one that
    /// is quickly searched.
    fn spend_iterations(&mut self, iterations: u32, of: &str) -> Result<NonZeroU32, Failure> {
        if iterations < CHOSEN_ITERATIONS_MIN && !scram::is_generated(of) {
            let message = "of a secret that `generate` did not make, SCRAM takes 4096 iterations \
                           at least";
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        let total = self.used.scram_iterations.saturating_add(iterations);
        let iterations = NonZeroU32::new(iterations).filter(|_| total <= ITERATIONS_MAX);
        let message = "SCRAM takes 1 to 1,000,000 iterations, and no more in all of a call";
        self.used.scram_iterations = total;
        iterations.ok_or_else(|| Failure::unsent(FailureKind::InvalidInput, message))
    }
}

async fn verifier(secret: SharedSecret, iterations: NonZeroU32) -> Result<SharedSecret, Failure> {
    let failed = || Failure::unsent(FailureKind::Other, "the verifier could not be computed");
    let verifier = if iterations.get() <= INLINE_ITERATIONS_MAX {
        scram::verifier(&secret, iterations).map_err(|_| failed())?
    } else {
        let compute = move || scram::verifier(&secret, iterations);
        let computed = tokio::task::spawn_blocking(compute).await;
        computed.map_err(|_| failed())?.map_err(|_| failed())?
    };
    Ok(Arc::new(verifier))
}

/// Documented in the plugin contract: what RFC 7677 asks for at least.
const CHOSEN_ITERATIONS_MIN: u32 = 4096;

/// Documented in the plugin contract.
const SESSIONS_MAX: u32 = 2;

/// Documented in the plugin contract; bounds the processor time that a call can make the host
/// spend to about half a second.
const ITERATIONS_MAX: u32 = 1_000_000;

/// About 2 ms: longer computations go to a thread that may block.
const INLINE_ITERATIONS_MAX: u32 = 4_096;
