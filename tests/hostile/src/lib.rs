//! What the hostile plugins share. Each attack is one component in `examples/`; the host's tests
//! run them and look at what got out.
//!
//! All attack in `issue`; their `revoke` is honest, so that a test can see whether the host still
//! serves the next call. What they found out they tell in the lease's field `report`.

mod findings;

use std::collections::BTreeMap;

use claviger_plugin_sdk::{Error, Issue, Lease, Provider, Revoke};

pub use findings::Findings;

/// Settings or parameters of whatever sort: the attacks do not read them.
pub type Ignored = BTreeMap<String, String>;

/// A request whose settings and parameters are whatever the test configured.
pub type Request = Issue<Ignored, Ignored>;

/// One attack: what runs when the host asks for a credential.
pub trait Attack {
    /// Does its worst, and tells how far it came.
    fn run(request: &Request, lease: &Lease) -> Result<String, Error>;
}

/// The plugin that carries an attack.
#[derive(Debug)]
pub struct Hostile<A>(std::marker::PhantomData<A>);

impl<A: Attack> Provider for Hostile<A> {
    type Settings = Ignored;
    type Parameters = Ignored;

    fn issue(request: &Request, lease: &Lease) -> Result<(), Error> {
        let report = A::run(request, lease)?;
        lease.set_field("report", &report)
    }

    fn revoke(_: &Revoke<Ignored>) -> Result<(), Error> {
        Ok(())
    }
}
