//! Turns machine code that this broker compiled into a component. The one place with `unsafe`:
//! what is handed to it runs as part of the broker, so it says whose code it is.
#![allow(unsafe_code, reason = "wasmtime cannot check that an artifact is its own output")]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Machine code that this broker made: what its own compiler just wrote, or what it read back
/// with its seal intact. Made nowhere else.
pub struct Artifact(Vec<u8>);

impl Artifact {
    /// What the compiling child, a process of this program, has just answered.
    pub(super) const fn compiled(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What the cache has read back, after its seal was found intact.
    pub(super) const fn unsealed(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The machine code.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The component. Fails if it was compiled for another machine, release or configuration.
    pub fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: `Component::deserialize` wants the unchanged output of this wasmtime's
        // compiler. An `Artifact` is made in two places: from the answer of our own compiling
        // child, over a pipe that nobody else holds, or from a file whose HMAC, under a key that
        // only this broker has, covers every byte and the exact release, configuration and
        // target. The bytes are our own memory, not a mapped file that could change meanwhile.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
