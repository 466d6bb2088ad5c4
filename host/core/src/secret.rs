//! A minted secret on its way to the agent: zeroed on drop, with a single exit.
//!
//! `Secret` has no `Debug`, `Display`, `Clone` or `Serialize`, so that no log line, error or
//! record can hold one by accident.

use zeroize::Zeroizing;

/// A secret value that leaves only through [`Secret::expose_once`].
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of a secret value.
    pub const fn new(value: Zeroizing<String>) -> Self {
        Self(value)
    }

    /// The one exit. INVARIANT (one-exit): called only where the reply to the agent is built;
    /// the tidy test counts the callers.
    pub fn expose_once(self) -> Zeroizing<String> {
        self.0
    }
}
