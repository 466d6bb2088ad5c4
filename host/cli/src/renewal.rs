//! Holds a session over the renewals of its client certificate: names the next certificate to the
//! broker while the current one still proves who asks, then goes on with the next. Prints nothing.

use std::time::Duration;

use claviger_core::binding::Thumbprint;
use claviger_proto::v1::RebindSessionRequest;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use tokio::sync::watch::Sender;
use tonic::transport::Channel;

use crate::client::{SessionToken, Target};
use crate::exit::Failure;
use crate::watch::{self, News};

/// A session to hold.
pub struct Held {
    /// The way to the broker, whose certificate may be renewed.
    pub target: Target,
    /// The session's token.
    pub token: SessionToken,
    /// The client that works now; replaced when the certificate is.
    pub client: Sender<AgentServiceClient<Channel>>,
    /// The certificate that this client shows.
    pub certificate: Option<Thumbprint>,
}

impl Held {
    /// Keeps the session alive until it is over, and returns why it ended.
    pub async fn hold(mut self, mut tell: impl FnMut(&News)) -> Result<String, Failure> {
        loop {
            let client = self.client.borrow().clone();
            let renewed = tokio::select! {
                ended = watch::hold(client.clone(), &self.token, &mut tell) => return ended,
                renewed = self.renewed(client) => renewed,
            };
            tell(&News::CertificateRenewed { sha256: renewed.to_string() });
            self.certificate = Some(renewed);
        }
    }

    /// Waits for another certificate and goes over to it. What fails is tried again at the next
    /// look: files are replaced one after the other, and a broker restarts.
    async fn renewed(&self, mut client: AgentServiceClient<Channel>) -> Thumbprint {
        let mut named = self.certificate;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Ok(prepared) = self.target.prepare() else { continue };
            let Some(found) = prepared.certificate().filter(|_| self.certificate.is_some()) else {
                return std::future::pending().await;
            };
            if Some(found) == self.certificate {
                continue;
            }
            if named != Some(found) {
                let Ok(()) = rebind(&mut client, &self.token, found).await else { continue };
                named = Some(found);
            }
            if let Ok(next) = prepared.agent().await {
                self.client.send_replace(next);
                return found;
            }
        }
    }
}

/// Names the next certificate of the session's holder.
pub async fn rebind(
    client: &mut AgentServiceClient<Channel>,
    token: &SessionToken,
    next: Thumbprint,
) -> Result<(), Failure> {
    let request = RebindSessionRequest { certificate_sha256: next.to_string() };
    client.rebind_session(token.authorize_call(request)?).await?;
    Ok(())
}

/// Renewals come minutes before the end of a certificate; but programs that read the new files at
/// once are refused until they have been named. Reading three small files costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(500);
