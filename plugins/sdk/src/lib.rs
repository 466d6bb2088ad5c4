//! Writes a Claviger plugin as plain Rust: the guest side of `wit/`, nothing of the host's.
#![doc = include_str!("../README.md")]

// The derives name the crate from outside; its own tests use them too.
#[cfg(test)]
extern crate self as claviger_plugin_sdk;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[path = "native.rs"]
pub mod bindings;
mod error;
pub mod http;
pub mod jwt;
pub mod log;
mod provider;
mod rotation;
mod schema;
mod secret;
pub mod sql;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod time;

pub use bindings::claviger::provider::calls::Lease;
pub use bindings::claviger::types::errors::{Error, ErrorKind};
pub use bindings::claviger::types::secrets::Secret;
pub use claviger_plugin_sdk_macros::Schema;
pub use provider::{Config, Issue, Problem, Provider, Revoke, RevokeAll};
pub use rotation::{DeleteKey, MakeKey, NewKey, Rotate, RotateKey, RotateRoot};
pub use schema::Schema;
pub use time::{rfc3339, unix_secs};

/// Makes a component of a [`Provider`] and embeds its manifest, the file at the given path
/// beside the plugin's `Cargo.toml`. The file is checked while the plugin is compiled. It leaves
/// out `settings-schema` and `parameters-schema` if [`Provider::Settings`] and
/// [`Provider::Parameters`] have a [`Schema`]; a schema in the file counts instead.
///
/// Once per plugin, at the top level:
/// `claviger_plugin_sdk::export!(Postgres, manifest = "manifest.json");`.
/// A plugin that has more abilities names them after the manifest: `batch` if it is also
/// [`RevokeAll`], `rotates` if it is also [`RotateRoot`], `rotates_keys` if it is also [`RotateKey`]:
/// `claviger_plugin_sdk::export!(Postgres, manifest = "manifest.json", batch, rotates);`.
/// On other targets than WebAssembly it only checks that all of it exists, so that the plugin's
/// own tests run natively.
#[macro_export]
macro_rules! export {
    (@batch $provider:ty) => {
        const _: () = {
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn() = $crate::guest::require_revoke_all::<$provider>;

            #[cfg(target_arch = "wasm32")]
            type Component = $crate::guest::Component<$provider>;
            #[cfg(target_arch = "wasm32")]
            $crate::guest::export_batch!(Component);
        };
    };
    (@rotates $provider:ty) => {
        const _: () = {
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn() = $crate::guest::require_rotate_root::<$provider>;

            #[cfg(target_arch = "wasm32")]
            type Component = $crate::guest::Component<$provider>;
            #[cfg(target_arch = "wasm32")]
            $crate::guest::export_rotation!(Component);
        };
    };
    (@rotates_keys $provider:ty) => {
        const _: () = {
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn() = $crate::guest::require_rotate_key::<$provider>;

            #[cfg(target_arch = "wasm32")]
            type Component = $crate::guest::Component<$provider>;
            #[cfg(target_arch = "wasm32")]
            $crate::guest::export_key_rotation!(Component);
        };
    };
    ($provider:ty, manifest = $path:literal $(, $ability:ident)*) => {
        const _: () = {
            const MANIFEST: &[u8] = $crate::guest::manifest!($provider, $path);

            #[cfg(not(target_arch = "wasm32"))]
            const _: (&[u8], fn()) = (MANIFEST, $crate::guest::require_provider::<$provider>);

            // The host reads the manifest from the file before it runs anything, so it is a
            // custom section and not an export. `strip = "debuginfo"` keeps it.
            #[cfg(target_arch = "wasm32")]
            #[expect(unsafe_code, reason = "names a link section that holds nothing but bytes")]
            #[unsafe(link_section = "claviger:manifest")]
            #[used]
            static SECTION: [u8; MANIFEST.len()] = {
                let mut bytes = [0; MANIFEST.len()];
                bytes.copy_from_slice(MANIFEST);
                bytes
            };

            #[cfg(target_arch = "wasm32")]
            type Component = $crate::guest::Component<$provider>;
            #[cfg(target_arch = "wasm32")]
            $crate::guest::export_component!(Component);
        };
        $($crate::export!(@$ability $provider);)*
    };
}

/// What [`export!`] expands to. Not for plugins.
#[doc(hidden)]
pub mod guest {
    #[cfg(target_arch = "wasm32")]
    pub use crate::bindings::batch::export_batch;
    #[cfg(target_arch = "wasm32")]
    pub use crate::bindings::export_component;
    #[cfg(target_arch = "wasm32")]
    pub use crate::bindings::key_rotating::export_key_rotation;
    #[cfg(target_arch = "wasm32")]
    pub use crate::bindings::rotating::export_rotation;
    pub use crate::provider::{Component, require_provider, require_revoke_all};
    pub use crate::rotation::{require_rotate_key, require_rotate_root};
    pub use crate::schema::{joined, length, text};
    pub use claviger_plugin_sdk_macros::manifest;
}
