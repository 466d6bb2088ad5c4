//! Attacks the reply and the journal: a lease of many fields, large ones, unknown ones, a handle of
//! kilobytes, a life that never ends. Each is refused by name and leaves what was set before.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct HugeLease;

claviger_plugin_sdk::export!(Hostile<HugeLease>, manifest = "plain.json");

impl Attack for HugeLease {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        let sixty = "x".repeat(60 * 1024);
        lease.set_field("report", &sixty)?;
        let mut refusals = 0;
        let mut count = |outcome: Result<(), Error>| refusals += u32::from(outcome.is_err());
        count(lease.set_field("report", &"x".repeat(70 * 1024)));
        count(lease.set_handle(&"x".repeat(4 * 1024 + 1)));
        count(lease.set_expires_at(request.expires_at + 1));
        count(lease.set_expires_at(u64::MAX));
        for number in 0..1_000 {
            count(lease.set_field(&format!("field{number}"), "x"));
            count(lease.set_join_key(&format!("key{number}"), "x"));
        }
        lease.set_expires_at(request.expires_at)?;
        Ok(refusals.to_string())
    }
}
