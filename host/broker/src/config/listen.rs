//! Where agents and operators connect, and what TLS demands of them: the section `[listen]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::SecretRef;

/// Where agents and operators connect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The agents' unix socket; the kernel tells who is at its other end.
    pub socket: PathBuf,
    /// The operators' unix socket. Its mode is always 0660; whoever connects must also be the
    /// broker's own user or one of `operator_uids`.
    pub admin_socket: PathBuf,
    /// The agents' TLS listener.
    pub tls: Option<TlsConfig>,
    /// The operators' TLS listener.
    pub admin_tls: Option<TlsConfig>,
    /// A listener for agents without TLS, on a loopback address, in `clavigerd dev` only.
    pub plain: Option<PlainConfig>,
}

/// A TLS listener.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Address and port.
    pub address: SocketAddr,
    /// The broker's certificate chain, PEM [default: the broker's X.509-SVID].
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<SecretRef>,
    /// The authority whose client certificates are accepted, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must have a certificate.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// Whether clients of a TLS listener must have a certificate. One that is presented is checked in
/// any case, and a bad one ends the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificates {
    /// Without one nobody connects.
    #[default]
    Required,
    /// Who has none must prove itself with a token.
    Optional,
    /// None is asked for; everybody must prove itself with a token.
    None,
}

/// A listener without TLS.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainConfig {
    /// Address and port.
    pub address: SocketAddr,
}
