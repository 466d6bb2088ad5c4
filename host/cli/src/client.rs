//! Reaches the broker: where it listens, over which transport, with whose token. Decides nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use claviger_core::binding::Thumbprint;
use claviger_proto::v1::admin_service_client::AdminServiceClient;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use claviger_proto::v1::secret_service_client::SecretServiceClient;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// Where the broker listens.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectionArgs {
    /// The broker's socket for agents [default: $XDG_RUNTIME_DIR/claviger/agent.sock if it
    /// exists, else /run/claviger/agent.sock]
    #[arg(long, global = true, env = SOCKET, value_name = "PATH", help_heading = HEADING)]
    socket: Option<PathBuf>,

    /// The broker's address over TLS, as in `https://broker.internal:7443`; wins over a socket
    #[arg(long, global = true, env = ADDRESS, value_name = "URL", help_heading = HEADING)]
    address: Option<String>,

    /// The authorities that the broker's certificate must come from (PEM)
    #[arg(long, global = true, env = CA, value_name = "FILE", help_heading = HEADING)]
    ca: Option<PathBuf>,

    /// This workload's certificate (PEM)
    #[arg(long, global = true, env = CERT, value_name = "FILE", help_heading = HEADING)]
    cert: Option<PathBuf>,

    /// The key of that certificate (PEM)
    #[arg(long, global = true, env = KEY, value_name = "FILE", help_heading = HEADING)]
    key: Option<PathBuf>,

    /// The broker's socket for operators [default: admin.sock, in the same places]
    #[arg(long, global = true, env = ADMIN_SOCKET, value_name = "PATH", help_heading = HEADING)]
    admin_socket: Option<PathBuf>,
}

/// One way to reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A unix socket.
    Socket(PathBuf),
    /// TLS, with a certificate of this workload or without one.
    Tls(TlsTarget),
}

/// An address and the files that prove both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTarget {
    address: String,
    ca: PathBuf,
    /// A certificate and its key. Without one, a token must prove the workload.
    identity: Option<(PathBuf, PathBuf)>,
}

impl ConnectionArgs {
    /// Where agents reach the broker.
    pub fn agent_target(&self) -> Result<Target, Failure> {
        let Some(address) = &self.address else {
            let socket = self.socket.clone().unwrap_or_else(|| default_socket("agent.sock"));
            return Ok(Target::Socket(socket));
        };
        if !address.starts_with("https://") {
            return Err(Failure::usage(format!(
                "`{address}` is not an address of the broker: it takes `https://host:port`"
            )));
        }
        let Some(ca) = self.ca.clone() else {
            return Err(Failure::usage(
                "an address needs `--ca` (or CLAVIGER_CA): the broker is known by the authority of its certificate",
            ));
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    "`--cert` and `--key` go together (or CLAVIGER_CERT and CLAVIGER_KEY): name both, or neither where a token proves the workload",
                ));
            }
        };
        Ok(Target::Tls(TlsTarget { address: address.clone(), ca, identity }))
    }

    /// Where operators reach the broker.
    pub fn admin_target(&self) -> Target {
        Target::Socket(self.admin_socket.clone().unwrap_or_else(|| default_socket("admin.sock")))
    }
}

impl Target {
    /// The variables by which a child reaches the same broker.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Self::Socket(path) => vec![(SOCKET, absolute(path))],
            Self::Tls(tls) => {
                let place = [(ADDRESS, tls.address.clone().into()), (CA, absolute(&tls.ca))];
                let identity = tls.identity.iter();
                let identity =
                    identity.flat_map(|(cert, key)| [(CERT, absolute(cert)), (KEY, absolute(key))]);
                place.into_iter().chain(identity).collect()
            }
        }
    }

    /// Reads the files of this way as they are now. What is made of them later does not change
    /// with them.
    pub fn prepare(&self) -> Result<Prepared<'_>, Failure> {
        let (endpoint, certificate) = match self {
            Self::Socket(path) => (socket_endpoint(path)?, None),
            Self::Tls(tls) => tls.endpoint()?,
        };
        let endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_while_idle(true);
        Ok(Prepared { target: self, endpoint, certificate })
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        self.prepare()?.connect().await
    }

    fn unreachable(&self, error: &tonic::transport::Error) -> Failure {
        let place = match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Tls(tls) => tls.address.clone(),
        };
        let sentence = format!("no broker answers at `{place}`: {}", root_cause(error));
        Failure::new(Exit::UNREACHABLE, sentence).with_next(
            "check that clavigerd runs there and that this user may connect, or name another place with --socket or --address (operators: --admin-socket)",
        )
    }
}

/// A way to the broker with what its files held when they were read.
pub struct Prepared<'a> {
    target: &'a Target,
    endpoint: Endpoint,
    certificate: Option<Thumbprint>,
}

impl Prepared<'_> {
    /// Where it leads.
    pub const fn target(&self) -> &Target {
        self.target
    }

    /// The certificate that this workload will show, if the way takes one.
    pub const fn certificate(&self) -> Option<Thumbprint> {
        self.certificate
    }

    /// Connects.
    pub async fn agent(&self) -> Result<AgentServiceClient<Channel>, Failure> {
        Ok(AgentServiceClient::new(self.connect().await?))
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        self.endpoint.connect().await.map_err(|error| self.target.unreachable(&error))
    }
}

/// The thumbprint of the first certificate in a PEM file: the one that names its holder.
pub fn thumbprint(path: &Path) -> Result<Thumbprint, Failure> {
    thumbprint_of(path, &read(path)?)
}

fn thumbprint_of(path: &Path, pem: &[u8]) -> Result<Thumbprint, Failure> {
    let leaf = CertificateDer::from_pem_slice(pem).map_err(|error| {
        Failure::usage(format!("`{}` holds no certificate in PEM form: {error}", path.display()))
    })?;
    Ok(Thumbprint::of_der(&leaf))
}

impl TlsTarget {
    fn endpoint(&self) -> Result<(Endpoint, Option<Thumbprint>), Failure> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.ca)?));
        let mut leaf = None;
        if let Some((cert, key)) = &self.identity {
            let (pem, key) = (read(cert)?, Zeroizing::new(read(key)?));
            leaf = Some(thumbprint_of(cert, &pem)?);
            tls = tls.identity(Identity::from_pem(pem, key.as_slice()));
        }
        let endpoint = Endpoint::from_shared(self.address.clone()).map_err(|error| {
            Failure::usage(format!("`{}`: {}", self.address, root_cause(&error)))
        })?;
        let endpoint = endpoint.tls_config(tls).map_err(|error| {
            Failure::usage(format!("the TLS files do not fit: {}", root_cause(&error)))
        })?;
        Ok((endpoint, leaf))
    }
}

/// The bearer token of a session. Not shown by anything but [`SessionToken::expose`].
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// Takes ownership of a token.
    pub const fn new(token: Zeroizing<String>) -> Self {
        Self(token)
    }

    /// The token that the environment holds. There is no argument for it on purpose: every local
    /// user can read the arguments of every process.
    pub fn from_environment() -> Result<Self, Failure> {
        match std::env::var(SESSION_TOKEN) {
            Ok(token) if !token.is_empty() => Ok(Self(Zeroizing::new(token))),
            _ => Err(Failure::usage(
                "there is no session: CLAVIGER_SESSION_TOKEN is not set. It is read from the environment only, since every local user can read a process's arguments",
            )
            .with_next(
                "work inside `claviger run --role ROLE -- COMMAND`, or open a session with `eval \"$(claviger session open --role ROLE --output export)\"`",
            )),
        }
    }

    /// The token itself, for the environment of a child or the answer to `session open`.
    pub fn expose(&self) -> Zeroizing<String> {
        self.0.clone()
    }

    /// `message` with the token as its bearer token.
    pub fn authorize<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut bearer: MetadataValue<Ascii> = text.parse().map_err(|_| {
            Failure::usage("CLAVIGER_SESSION_TOKEN holds characters that no token has")
        })?;
        bearer.set_sensitive(true);
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }

    /// The same, for a call that must be answered in time.
    pub fn authorize_call<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = self.authorize(message)?;
        request.set_timeout(ANSWER_WITHIN);
        Ok(request)
    }
}

/// `message` as a call that needs no session and must be answered in time.
pub fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_WITHIN);
    request
}

/// The agents' side of the broker.
pub async fn agent(target: &Target) -> Result<AgentServiceClient<Channel>, Failure> {
    Ok(AgentServiceClient::new(target.connect().await?))
}

/// The operators' side of the broker.
pub async fn admin(connection: &ConnectionArgs) -> Result<AdminServiceClient<Channel>, Failure> {
    Ok(AdminServiceClient::new(connection.admin_target().connect().await?))
}

/// The store of secrets, on the operators' side.
pub async fn secrets(connection: &ConnectionArgs) -> Result<SecretServiceClient<Channel>, Failure> {
    Ok(SecretServiceClient::new(connection.admin_target().connect().await?))
}

fn socket_endpoint(path: &Path) -> Result<Endpoint, Failure> {
    let wrong = || Failure::usage(format!("`{}` cannot be a socket's path", path.display()));
    let text = path.to_str().ok_or_else(wrong)?;
    Endpoint::from_shared(format!("unix://{text}")).map_err(|_| wrong())
}

fn default_socket(name: &str) -> PathBuf {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|directory| Path::new(&directory).join("claviger").join(name));
    match of_user {
        Some(path) if path.exists() => path,
        _ => Path::new("/run/claviger").join(name),
    }
}

/// The child may change its working directory.
fn absolute(path: &Path) -> OsString {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into()
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::unreadable(&path.display().to_string(), &error))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

const HEADING: &str = "Connection";

/// Names the socket for agents.
pub const SOCKET: &str = "CLAVIGER_SOCKET";
/// Names the address over TLS.
pub const ADDRESS: &str = "CLAVIGER_ADDRESS";
/// Names the file of authorities.
pub const CA: &str = "CLAVIGER_CA";
/// Names the workload's certificate.
pub const CERT: &str = "CLAVIGER_CERT";
/// Names the workload's key.
pub const KEY: &str = "CLAVIGER_KEY";
/// Names the socket for operators.
pub const ADMIN_SOCKET: &str = "CLAVIGER_ADMIN_SOCKET";
/// Holds the session's token.
pub const SESSION_TOKEN: &str = "CLAVIGER_SESSION_TOKEN";

/// A local socket answers at once and a remote one within a round trip or two; longer than this
/// and a person would think that the command hangs.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The broker spends at most 30 seconds on an Issue; less would give up on credentials that then
/// exist without a reader.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

/// A broken connection under a quiet stream shows after this and one more timeout of 20 s, well
/// within the usual heartbeat grace.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn tls_args() -> ConnectionArgs {
        ConnectionArgs {
            socket: Some("/tmp/agent.sock".into()),
            address: Some("https://broker:7443".to_owned()),
            ca: Some("/tls/ca.pem".into()),
            cert: Some("/tls/cert.pem".into()),
            key: Some("/tls/key.pem".into()),
            admin_socket: None,
        }
    }

    #[test]
    fn an_address_wins_over_a_socket_and_reaches_the_child() {
        let variables = tls_args().agent_target().unwrap().variables();
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [ADDRESS, CA, CERT, KEY]);
    }

    #[test]
    fn a_certificate_is_named_with_its_key_or_not_at_all() {
        let bare = ConnectionArgs { cert: None, key: None, ..tls_args() };
        let variables = bare.agent_target().unwrap().variables();
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [ADDRESS, CA]);
        for args in
            [ConnectionArgs { cert: None, ..tls_args() }, ConnectionArgs { ca: None, ..tls_args() }]
        {
            assert_eq!(args.agent_target().unwrap_err().exit, Exit::USAGE);
        }
    }

    #[test]
    fn an_address_without_proof_of_both_ends_is_refused() {
        let plain = ConnectionArgs { address: Some("http://broker:1".into()), ..tls_args() };
        for args in [plain, ConnectionArgs { key: None, ..tls_args() }] {
            assert_eq!(args.agent_target().unwrap_err().exit, Exit::USAGE);
        }
    }

    #[test]
    fn the_token_travels_marked_as_sensitive() {
        let token = SessionToken::new(Zeroizing::new("abc".to_owned()));
        let request = token.authorize_call(()).unwrap();
        let bearer = request.metadata().get("authorization").unwrap();
        assert!(bearer.is_sensitive());
        assert_eq!(bearer.to_str().unwrap(), "Bearer abc");
        let broken = SessionToken::new(Zeroizing::new("a\nb".to_owned()));
        assert_eq!(broken.authorize(()).unwrap_err().exit, Exit::USAGE);
    }

    #[tokio::test]
    async fn a_missing_socket_is_unreachable_and_named() {
        let target = Target::Socket("/nowhere/agent.sock".into());
        let failure = target.connect().await.unwrap_err();
        assert_eq!(failure.exit, Exit::UNREACHABLE);
        assert!(failure.sentence.contains("`/nowhere/agent.sock`"), "{}", failure.sentence);
    }
}
