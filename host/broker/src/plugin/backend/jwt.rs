//! Binds connections to the broker as an issuer of tokens. Signs nothing.

use std::sync::Arc;

use claviger_core::name::{BackendName, ConnectionName};

use super::{BackendError, mismatch};
use crate::issuer::Issuer;
use crate::plugin::spec::JwtSpec;

/// The broker as an issuer of tokens for some audiences.
pub struct JwtConnection {
    /// Signs them.
    pub(in crate::plugin) issuer: Arc<Issuer>,
    /// For whom.
    pub(in crate::plugin) audiences: Vec<String>,
}

/// The granted connection, or what is missing and what to write.
pub(super) fn connect(
    (backend, name): (&BackendName, &ConnectionName),
    spec: JwtSpec,
    issuer: Option<&Arc<Issuer>>,
) -> Result<JwtConnection, BackendError> {
    let audiences = spec.audiences;
    let fits = |audience: &String| {
        (1..=AUDIENCE_BYTES_MAX).contains(&audience.len()) && !audience.contains(char::is_control)
    };
    if !(1..=AUDIENCES_MAX).contains(&audiences.len()) || !audiences.iter().all(fits) {
        let reason = format!(
            "name whom its tokens are for: 1 to {AUDIENCES_MAX} audiences of 1 to \
             {AUDIENCE_BYTES_MAX} characters; write:\n\n{}",
            stanza(backend, name)
        );
        return Err(mismatch(name, reason));
    }
    let issuer = issuer.ok_or_else(|| mismatch(name, ISSUER_WANTED))?;
    Ok(JwtConnection { issuer: Arc::clone(issuer), audiences })
}

/// What grants a connection.
pub(super) fn stanza(backend: &BackendName, name: &ConnectionName) -> String {
    format!(
        "[backends.{backend}.connections.{name}]\n\
         audiences = [\"sts.amazonaws.com\"]   # for whom the broker may sign\n"
    )
}

/// What to write where tokens are to be signed and there is no issuer.
pub const ISSUER_WANTED: &str = "the broker signs tokens on this connection, so it must be an \
     issuer; write:\n\n\
     [issuer]\n\
     url = \"https://broker.example.org\"   # where relying parties reach the page below\n\
     address = \"127.0.0.1:8480\"          # plain HTTP for a proxy; with `certificate` and `key`, TLS\n";

/// A backend's tokens are checked in a few places.
const AUDIENCES_MAX: usize = 16;

/// Audiences are host names and URLs.
const AUDIENCE_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
    use std::time::Duration;

    use super::*;
    use crate::config::{ConnectionConfig, IssuerConfig};

    fn refusal(audiences: &[&str], issuer: Option<&Arc<Issuer>>) -> Option<String> {
        let (backend, name) = ("aws".parse().unwrap(), "broker".parse().unwrap());
        let spec = JwtSpec { audiences: audiences.iter().map(ToString::to_string).collect() };
        connect((&backend, &name), spec, issuer).err().map(|error| error.to_string())
    }

    #[test]
    fn a_grant_names_whom_its_tokens_are_for() {
        let issuer = Issuer::new("https://b.example", Duration::from_hours(24)).unwrap();
        let issuer = Some(Arc::new(issuer));
        assert_eq!(refusal(&["sts.amazonaws.com"], issuer.as_ref()), None);
        let many = ["a"; 17];
        for audiences in [&[][..], &[""], &["a\nb"], &many] {
            let error = refusal(audiences, issuer.as_ref()).unwrap();
            assert!(error.contains("[backends.aws.connections.broker]\naudiences ="), "{error}");
        }
        assert!(refusal(&["a"], None).unwrap().contains("[issuer]\nurl = "));
    }

    #[test]
    fn what_the_refusals_say_to_write_is_taken() {
        let (backend, name) = ("aws".parse().unwrap(), "broker".parse().unwrap());
        let table: toml::Table = stanza(&backend, &name).parse().unwrap();
        let connection = table["backends"]["aws"]["connections"]["broker"].clone();
        let config: ConnectionConfig = connection.try_into().unwrap();
        assert_eq!(config.audiences, ["sts.amazonaws.com"]);
        let stanza = ISSUER_WANTED.split_once("\n\n").unwrap().1;
        let table: toml::Table = stanza.parse().unwrap();
        let config: IssuerConfig = table["issuer"].clone().try_into().unwrap();
        assert!(Issuer::new(&config.url, config.rotate_every.0).is_ok());
    }
}
