//! What an author implements, and the component made of it: parses the host's JSON into the
//! author's types on the way in. Holds no state, for a fresh instance serves each call.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::batch::exports::claviger::batch::revocation;
use crate::bindings::claviger::provider::calls::{IssueRequest, RevokeRequest};
use crate::bindings::exports::claviger::provider::provider::Guest;
use crate::{Error, ErrorKind, Lease};

pub use crate::bindings::exports::claviger::provider::provider::Problem;

/// A kind of backend: mints credentials there, and ends them.
pub trait Provider {
    /// The backend's settings, as the manifest's `settings-schema` describes them.
    type Settings: DeserializeOwned;
    /// A scope's parameters, as the manifest's `parameters-schema` describes them.
    type Parameters: DeserializeOwned;

    /// Finds what a JSON schema cannot: called when the configuration is loaded, with no
    /// connection to reach.
    fn validate(config: &Config<Self::Settings, Self::Parameters>) -> Vec<Problem> {
        let _ = config;
        Vec::new()
    }

    /// Mints a credential into the lease. Idempotent on the intent: called again after a lost
    /// answer, it must leave exactly one credential.
    fn issue(issue: &Issue<Self::Settings, Self::Parameters>, lease: &Lease) -> Result<(), Error>;

    /// Ends a credential, also one of which only the intent is known. `Ok` when it is gone,
    /// whether or not it existed.
    fn revoke(revoke: &Revoke<Self::Settings>) -> Result<(), Error>;
}

/// A provider whose upstream ends several credentials faster at once than one after the other.
/// Exported by `export!(…, manifest = "…", batch)`.
pub trait RevokeAll: Provider {
    /// Ends every one of these credentials, at most 32. `Ok` when all are gone, whether or not they
    /// existed. After an error the host ends each alone with [`Provider::revoke`].
    fn revoke_all(revokes: &[Revoke<Self::Settings>]) -> Result<(), Error>;
}

/// The configuration of one backend with all of its scopes.
#[derive(Debug)]
pub struct Config<S, P> {
    /// The backend's settings.
    pub settings: S,
    /// The parameters of each scope, by its name.
    pub scopes: BTreeMap<String, P>,
}

/// One permitted and recorded request to mint a credential.
#[derive(Debug)]
pub struct Issue<S, P> {
    /// The intent's id: 26 lower-case letters and digits. Everything made upstream must carry
    /// it, so that [`Provider::revoke`] can work from it alone.
    pub intent: String,
    /// The session's id: 26 lower-case letters and digits.
    pub session: String,
    /// The role's name: letters, digits, `._-` and inner spaces, at most 64.
    pub role: String,
    /// The requester's id, such as `unix:1000`.
    pub requester: String,
    /// The scope, as `backend/scope`.
    pub scope: String,
    /// The backend's settings.
    pub settings: S,
    /// The scope's parameters.
    pub parameters: P,
    /// Now, in Unix seconds, by the broker's clock.
    pub now: u64,
    /// When the credential must stop working, in Unix seconds.
    pub expires_at: u64,
}

/// One request to end a credential.
#[derive(Debug)]
pub struct Revoke<S> {
    /// The intent's id, as in [`Issue::intent`].
    pub intent: String,
    /// The scope, as `backend/scope`. It may no longer be configured.
    pub scope: String,
    /// The backend's settings, as they are now.
    pub settings: S,
    /// What `issue` left with [`Lease::set_handle`]; `None` if it never came to an end.
    pub handle: Option<String>,
    /// Now, in Unix seconds, by the broker's clock.
    pub now: u64,
}

impl Problem {
    /// Something wrong with one of the backend's settings.
    pub fn in_setting(setting: &str, message: impl Into<String>) -> Self {
        Self { pointer: format!("/settings/{}", escape(setting)), message: message.into() }
    }

    /// Something wrong with one of a scope's parameters.
    pub fn in_parameter(scope: &str, parameter: &str, message: impl Into<String>) -> Self {
        let pointer = format!("/scopes/{}/{}", escape(scope), escape(parameter));
        Self { pointer, message: message.into() }
    }
}

/// The component that `export!` makes of a provider.
#[derive(Debug)]
pub struct Component<P>(PhantomData<P>);

impl<P: Provider> Guest for Component<P> {
    fn validate_config(config: String) -> Vec<Problem> {
        match parse_config::<P>(&config) {
            Ok(config) => P::validate(&config),
            Err(problems) => problems,
        }
    }

    fn issue(request: &IssueRequest, lease: &Lease) -> Result<(), Error> {
        let issue = Issue {
            intent: request.intent(),
            session: request.session(),
            role: request.role(),
            requester: request.requester(),
            scope: request.scope(),
            settings: parse("settings", &request.settings())?,
            parameters: parse("parameters", &request.parameters())?,
            now: request.now(),
            expires_at: request.expires_at(),
        };
        P::issue(&issue, lease)
    }

    fn revoke(request: &RevokeRequest) -> Result<(), Error> {
        P::revoke(&parse_revoke::<P>(request)?)
    }
}

impl<P: RevokeAll> revocation::Guest for Component<P> {
    fn revoke_all(requests: Vec<RevokeRequest>) -> Result<(), Error> {
        let revokes: Result<Vec<_>, _> = requests.iter().map(parse_revoke::<P>).collect();
        P::revoke_all(&revokes?)
    }
}

fn parse_revoke<P: Provider>(request: &RevokeRequest) -> Result<Revoke<P::Settings>, Error> {
    Ok(Revoke {
        intent: request.intent(),
        scope: request.scope(),
        settings: parse("settings", &request.settings())?,
        handle: request.lease_handle(),
        now: request.now(),
    })
}

/// Compiles only for a provider: what `export!` checks where it exports nothing.
pub fn require_provider<P: Provider>() {}

/// The same for one that ends several credentials at once.
pub fn require_revoke_all<P: RevokeAll>() {}

pub(crate) fn parse<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|error| {
        Error::new(ErrorKind::InvalidConfig, format!("the {what} do not fit the plugin: {error}"))
    })
}

type ParsedConfig<P> = Config<<P as Provider>::Settings, <P as Provider>::Parameters>;

fn parse_config<P: Provider>(json: &str) -> Result<ParsedConfig<P>, Vec<Problem>> {
    #[derive(serde::Deserialize)]
    struct Document {
        settings: serde_json::Value,
        scopes: BTreeMap<String, serde_json::Value>,
    }

    let problem = |pointer: String, error: serde_json::Error| {
        vec![Problem { pointer, message: error.to_string() }]
    };
    let document: Document =
        serde_json::from_str(json).map_err(|error| problem(String::new(), error))?;
    let settings = serde_json::from_value(document.settings)
        .map_err(|error| problem("/settings".to_owned(), error))?;
    let mut scopes = BTreeMap::new();
    for (name, parameters) in document.scopes {
        let parameters = serde_json::from_value(parameters)
            .map_err(|error| problem(format!("/scopes/{}", escape(&name)), error))?;
        scopes.insert(name, parameters);
    }
    Ok(Config { settings, scopes })
}

/// Escapes a name as one step of a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example;

    #[derive(Debug, serde::Deserialize)]
    struct Parameters {
        group: String,
    }

    impl Provider for Example {
        type Settings = BTreeMap<String, u32>;
        type Parameters = Parameters;

        fn validate(config: &Config<Self::Settings, Parameters>) -> Vec<Problem> {
            let of_scope = |(name, parameters): (&String, &Parameters)| {
                (parameters.group == "root")
                    .then(|| Problem::in_parameter(name, "group", "too mighty"))
            };
            config.scopes.iter().filter_map(of_scope).collect()
        }

        fn issue(_: &Issue<Self::Settings, Parameters>, _: &Lease) -> Result<(), Error> {
            Ok(())
        }

        fn revoke(_: &Revoke<Self::Settings>) -> Result<(), Error> {
            Ok(())
        }
    }

    #[test]
    fn points_at_what_is_wrong_with_a_configuration() {
        for (config, pointers) in [
            (r#"{"settings":{},"scopes":{"a":{"group":"x"}}}"#, &[][..]),
            (r#"{"settings":{},"scopes":{"a":{"group":"root"}}}"#, &["/scopes/a/group"]),
            (r#"{"settings":{},"scopes":{"a/~b":{"group":"root"}}}"#, &["/scopes/a~1~0b/group"]),
            (r#"{"settings":{"n":"x"},"scopes":{}}"#, &["/settings"]),
            (r#"{"settings":{},"scopes":{"a/b":{}}}"#, &["/scopes/a~1b"]),
            ("[]", &[""]),
        ] {
            let problems = Component::<Example>::validate_config(config.to_owned());
            let found: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
            assert_eq!(found, pointers, "{config}");
        }
    }
}
