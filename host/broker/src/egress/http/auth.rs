//! How the host authenticates on an HTTP connection. The credentials stay here.

use zeroize::Zeroizing;

/// A way of authenticating, with the broker's own credential.
pub enum HttpAuth {
    /// Not at all.
    None,
    /// `authorization: Bearer …`.
    Bearer {
        /// The token.
        token: Zeroizing<String>,
    },
    /// `authorization: Basic …`.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A header of the service's own.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Zeroizing<String>,
    },
    /// AWS Signature Version 4.
    Sigv4 {
        /// The access key's id.
        access_key_id: Zeroizing<String>,
        /// The access key.
        secret_access_key: Zeroizing<String>,
        /// For temporary keys.
        session_token: Option<Zeroizing<String>>,
        /// Such as `eu-central-1`.
        region: String,
        /// Such as `sts`.
        service: String,
    },
    /// A token for a client id and secret (RFC 6749, section 4.4).
    OAuth2ClientCredentials {
        /// The token endpoint.
        token_url: String,
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: Zeroizing<String>,
        /// The scopes to ask for.
        scopes: Vec<String>,
        /// The audience to ask for.
        audience: Option<String>,
    },
    /// A token for one that the broker signs (RFC 8693).
    TokenExchange {
        /// The token endpoint.
        token_url: String,
        /// The audience of the broker's own token.
        subject_audience: String,
        /// The audience to ask for.
        audience: Option<String>,
        /// The scopes to ask for.
        scopes: Vec<String>,
    },
    /// A token for an assertion signed with a service account's key (RFC 7523).
    GoogleServiceAccount {
        /// The key file's JSON.
        key: Zeroizing<String>,
        /// The scopes to ask for.
        scopes: Vec<String>,
    },
    /// A token that the broker signs.
    WebIdentity {
        /// Its audience.
        audience: String,
        /// The form parameter that carries it; without one it is a bearer token.
        form_parameter: Option<String>,
    },
    /// A client certificate.
    Mtls {
        /// The chain, PEM.
        certificate: Vec<u8>,
        /// Its private key, PEM.
        key: Zeroizing<String>,
    },
}
