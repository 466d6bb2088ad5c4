//! Replaces the credential with which the host itself logs in: an ability that a plugin may have
//! besides those of a [`Provider`]. Makes no password.

use crate::{Error, Provider, Secret};

/// A kind of backend whose root credentials the broker can replace. Exported with
/// `export!(…, manifest = "…", rotates)`.
pub trait RotateRoot: Provider {
    /// Gives the account with which the connection logs in the new password, in one step that takes
    /// effect whole or not at all. Sessions that are open must go on.
    fn rotate_root(rotate: &Rotate<Self::Settings>) -> Result<(), Error>;
}

/// One request to replace a root credential.
#[derive(Debug)]
pub struct Rotate<S> {
    /// The connection, by the name that the manifest gives it.
    pub connection: String,
    /// The backend's settings.
    pub settings: S,
    /// The new password: one that the host has generated.
    pub secret: Secret,
    /// Now, in Unix seconds, by the broker's clock.
    pub now: u64,
}

/// Compiles only for a plugin that rotates: what `export!` checks where it exports nothing.
pub fn require_rotate_root<P: RotateRoot>() {}

#[cfg(target_arch = "wasm32")]
mod guest {
    use super::{Rotate, RotateRoot};
    use crate::Error;
    use crate::bindings::rotating::claviger::provider::rotation_calls::RotateRequest;
    use crate::bindings::rotating::exports::claviger::provider::rotation::Guest;
    use crate::provider::{Component, parse};

    impl<P: RotateRoot> Guest for Component<P> {
        fn rotate_root(request: &RotateRequest) -> Result<(), Error> {
            let rotate = Rotate {
                connection: request.connection(),
                settings: parse("settings", &request.settings())?,
                secret: request.new_secret()?,
                now: request.now(),
            };
            P::rotate_root(&rotate)
        }
    }
}
