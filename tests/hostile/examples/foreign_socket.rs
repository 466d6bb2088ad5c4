//! Attacks the network: opens a socket of its own, and so imports `wasi:sockets`. Admission must
//! refuse the component and name the import.

use std::net::TcpStream;

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct ForeignSocket;

claviger_plugin_sdk::export!(Hostile<ForeignSocket>, manifest = "plain.json");

impl Attack for ForeignSocket {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let outcome = match TcpStream::connect("127.0.0.1:5432") {
            Ok(_) => "connected".to_owned(),
            Err(error) => error.to_string(),
        };
        Ok(outcome)
    }
}
