//! Streams to operators, which last no longer than what let their call in: the certificate of the
//! connection, and what the policies say. Ends what is told, never what the call has begun.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use claviger_core::admin::AdminAsk;
use claviger_core::flow;
use claviger_core::flow::admin::AdmitError;
use claviger_core::policy::SnapshotDigest;
use claviger_core::ports::{Clock, Ports};
use claviger_core::time::Timestamp;
use tokio_stream::Stream;
use tonic::Status;

use crate::authenticate::AuthenticateError;
use crate::broker::Broker;
use crate::rpc::status;
use crate::tls::is_over;

/// What is told over time.
pub type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What let a call in, and must go on to hold.
pub struct Tenure {
    /// The broker.
    pub broker: Arc<Broker>,
    /// What was permitted.
    pub ask: AdminAsk,
    /// By what.
    pub snapshot: SnapshotDigest,
    /// When the certificate of the connection expires, if it has one.
    pub proof_ends: Option<Timestamp>,
}

/// The same stream, which ends with the reason as soon as `tenure` no longer holds.
pub fn lasting<T: 'static>(
    told: impl Stream<Item = Result<T, Status>> + Send + 'static,
    tenure: Tenure,
) -> Streamed<T> {
    Box::pin(Lasting { told: Box::pin(told), refused: Some(Box::pin(refused(tenure))) })
}

struct Lasting<T> {
    told: Streamed<T>,
    /// `None` once it has come.
    refused: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
}

impl<T> Stream for Lasting<T> {
    type Item = Result<T, Status>;

    /// Looks at the tenure first, so that nothing more is told once it is over, however much is ready.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(refused) = &mut this.refused else { return Poll::Ready(None) };
        if let Poll::Ready(status) = refused.as_mut().poll(context) {
            this.refused = None;
            return Poll::Ready(Some(Err(status)));
        }
        this.told.as_mut().poll_next(context)
    }
}

/// Waits, for ever if need be, until the call would be let in no more, and says why.
async fn refused(tenure: Tenure) -> Status {
    let Tenure { broker, ask, snapshot, proof_ends } = tenure;
    tokio::select! {
        () = expired(&broker, proof_ends) => {
            status::of_authentication(&AuthenticateError::ExpiredCertificate)
        }
        error = no_longer_permitted(&broker, (ask, snapshot)) => status::of_admit(&error),
    }
}

async fn expired(broker: &Broker, proof_ends: Option<Timestamp>) {
    let Some(ends) = proof_ends else { return pending().await };
    loop {
        let now = broker.clock().now();
        if is_over(ends, now) {
            return;
        }
        // The last second still counts.
        let left = ends.since(now) + Duration::from_secs(1);
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
    }
}

async fn no_longer_permitted(
    broker: &Broker,
    (ask, snapshot): (AdminAsk, SnapshotDigest),
) -> AdmitError {
    let mut seen = snapshot;
    loop {
        broker.policies.changed_from(seen).await;
        match flow::admin::again(broker, ask.clone()).await {
            Ok(snapshot) => seen = snapshot,
            Err(error) => return error,
        }
    }
}

/// Certificates end by the wall clock, which may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_the_last_word_whatever_else_is_ready() {
        let ready: [Result<u8, Status>; 3] = [Ok(1), Ok(2), Ok(3)];
        let (refuse, comes) = oneshot::channel();
        let mut lasting = Lasting {
            told: Box::pin(tokio_stream::iter(ready)),
            refused: Some(Box::pin(async move { comes.await.expect("a refusal") })),
        };
        assert_eq!(lasting.next().await.expect("told").expect("an item"), 1);
        refuse.send(status::ended_meanwhile()).expect("somebody waits");
        assert!(lasting.next().await.expect("a last word").is_err());
        assert!(lasting.next().await.is_none());
    }
}
