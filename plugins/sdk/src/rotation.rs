//! Replaces the credential with which the host itself logs in: two abilities of which a plugin may
//! have one besides those of a [`Provider`]. Makes no password, and sees no key.

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

/// A kind of backend that makes root credentials itself, each with an id, such as AWS its access
/// keys. Exported with `export!(…, manifest = "…", rotates_keys)`.
pub trait RotateKey: Provider {
    /// Has the backend make another key beside the one in force. Where it has room for so many
    /// only, what an interrupted call made, and nobody has, is deleted first.
    fn make_key(make: &MakeKey<Self::Settings>) -> Result<NewKey, Error>;

    /// Deletes a key that nothing uses any more. `ErrorKind::NotFound` if the backend says that the
    /// account has no such key: that ends it too, and is recorded as what it is.
    fn delete_key(delete: &DeleteKey<Self::Settings>) -> Result<(), Error>;
}

/// One request to have another key made.
#[derive(Debug)]
pub struct MakeKey<S> {
    /// The connection, by the name that the manifest gives it.
    pub connection: String,
    /// The backend's settings.
    pub settings: S,
    /// The id of the key in force, which stays as it is.
    pub id_in_force: String,
    /// Now, in Unix seconds, by the broker's clock.
    pub now: u64,
}

/// What the backend has made.
#[derive(Debug)]
pub struct NewKey {
    /// Its id: 1 to 128 printable ASCII characters, not a secret.
    pub id: String,
    /// The key, taken unseen from the answer.
    pub key: Secret,
}

/// One request to delete a key.
#[derive(Debug)]
pub struct DeleteKey<S> {
    /// The connection, by the name that the manifest gives it.
    pub connection: String,
    /// The backend's settings.
    pub settings: S,
    /// The id of the key in force: not the one to delete.
    pub id_in_force: String,
    /// The id of the key to delete.
    pub id: String,
    /// Now, in Unix seconds, by the broker's clock.
    pub now: u64,
}

/// Compiles only for a plugin that rotates: what `export!` checks where it exports nothing.
pub fn require_rotate_root<P: RotateRoot>() {}

/// The same for one whose backend makes the keys.
pub fn require_rotate_key<P: RotateKey>() {}

#[cfg(target_arch = "wasm32")]
mod guest {
    use super::{DeleteKey, MakeKey, NewKey, Rotate, RotateKey, RotateRoot};
    use crate::Error;
    use crate::bindings::key_rotating::claviger::provider::key_rotation_calls::{
        DeleteKeyRequest, MakeKeyRequest,
    };
    use crate::bindings::key_rotating::exports::claviger::provider::key_rotation;
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

    impl<P: RotateKey> key_rotation::Guest for Component<P> {
        fn make_key(request: &MakeKeyRequest) -> Result<(), Error> {
            let make = MakeKey {
                connection: request.connection(),
                settings: parse("settings", &request.settings())?,
                id_in_force: request.id_in_force(),
                now: request.now(),
            };
            let NewKey { id, key } = P::make_key(&make)?;
            request.keep(&id, &key)
        }

        fn delete_key(request: &DeleteKeyRequest) -> Result<(), Error> {
            let delete = DeleteKey {
                connection: request.connection(),
                settings: parse("settings", &request.settings())?,
                id_in_force: request.id_in_force(),
                id: request.id(),
                now: request.now(),
            };
            P::delete_key(&delete)
        }
    }
}
