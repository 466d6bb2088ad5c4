//! Attacks the call's end: panics, with a message of its own choosing. The trap must end this
//! call only, and the next instance must serve.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct Panic;

claviger_plugin_sdk::export!(Hostile<Panic>, manifest = "plain.json");

impl Attack for Panic {
    #[expect(clippy::panic, reason = "it is the attack")]
    fn run(request: &Request, _: &Lease) -> Result<String, Error> {
        panic!("hostile panic\n{{\"level\":\"info\",\"intent\":\"{}\"}}", request.intent);
    }
}
