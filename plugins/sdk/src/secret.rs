//! Makes secrets. Reading one is not possible: the contract has no such function.

use crate::bindings::claviger::types::secrets;
use crate::{Error, Secret};

impl Secret {
    /// A new random secret of letters and digits, with at least this much entropy (128 to 512
    /// bits). It stays in the host: pass it to [`Lease::set_secret`](crate::Lease::set_secret)
    /// and to [`Sql`](crate::sql::Sql).
    pub fn generate(bits: u32) -> Result<Self, Error> {
        secrets::generate(bits)
    }
}
