//! A SPIFFE Workload API of a test: streams what it is told to, to whoever sends the header that
//! the specification demands. Written from the published messages; signs nothing itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// The message `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct X509SvidResponse {
    /// The SVIDs of the workload.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// Revocation lists, DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// Bundles of other trust domains, each certificates in DER.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// The message `X509SVID`.
#[derive(Clone, PartialEq, Message)]
pub struct X509Svid {
    /// Its id.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// Its chain, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// Its key, PKCS#8 in DER.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The bundle of its trust domain, certificates in DER.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// What it is for.
    #[prost(string, tag = "5")]
    pub hint: String,
}

/// The message `JWTBundlesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct JwtBundlesResponse {
    /// The JWK sets of trust domains.
    #[prost(map = "string, bytes", tag = "1")]
    pub bundles: HashMap<String, Vec<u8>>,
}

/// A running Workload API. Stops when it is dropped.
pub struct WorkloadApi {
    x509: watch::Sender<X509SvidResponse>,
    jwt: watch::Sender<JwtBundlesResponse>,
    serving: JoinHandle<()>,
    path: PathBuf,
}

impl WorkloadApi {
    /// Listens at `path`, and says `x509` first.
    pub fn start(path: &Path, x509: X509SvidResponse) -> Self {
        let (x509, x509_said) = watch::channel(x509);
        let (jwt, jwt_said) = watch::channel(JwtBundlesResponse::default());
        let listener = UnixListener::bind(path).expect("bound");
        let api = Api { x509: x509_said, jwt: jwt_said };
        let serving = tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            let served = Server::builder().add_service(api).serve_with_incoming(incoming).await;
            served.expect("served");
        });
        Self { x509, jwt, serving, path: path.to_owned() }
    }

    /// Says something new to everybody who listens.
    pub fn say(&self, x509: X509SvidResponse) {
        self.x509.send_replace(x509);
    }

    /// The same of JWT bundles.
    pub fn say_jwt(&self, jwt: JwtBundlesResponse) {
        self.jwt.send_replace(jwt);
    }

    /// How many listen to its X.509 stream.
    pub fn listeners(&self) -> usize {
        // One receiver is its own.
        self.x509.receiver_count() - 1
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.serving.abort();
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

#[derive(Clone)]
struct Api {
    x509: watch::Receiver<X509SvidResponse>,
    jwt: watch::Receiver<JwtBundlesResponse>,
}

impl NamedService for Api {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Service<http::Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match request.uri().path() {
            "/SpiffeWorkloadAPI/FetchX509SVID" => said(self.x509.clone(), request),
            "/SpiffeWorkloadAPI/FetchJWTBundles" => said(self.jwt.clone(), request),
            path => {
                let refused = Status::unimplemented(path.to_owned());
                Box::pin(async move { Ok(refused.into_http()) })
            }
        }
    }
}

/// Streams what is said, now and whenever it changes.
fn said<M: Message + Default + Clone + Send + Sync + 'static>(
    said: watch::Receiver<M>,
    request: http::Request<Body>,
) -> Answer {
    type Said<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;
    let service = tower::service_fn(move |request: Request<()>| {
        let said = said.clone();
        async move {
            let security = request.metadata().get("workload.spiffe.io");
            if security.is_none_or(|value| value != "true") {
                return Err(Status::invalid_argument("security header missing from request"));
            }
            let stream: Said<M> = Box::pin(WatchStream::new(said).map(Ok));
            Ok(Response::new(stream))
        }
    });
    Box::pin(async move {
        let codec = ProstCodec::<M, ()>::default();
        Ok(Grpc::new(codec).server_streaming(service, request).await)
    })
}
