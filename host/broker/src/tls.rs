//! TLS towards those who connect: the broker's own certificate, whom it trusts, and the handshakes.
//! Knows no calls and no sessions; towards backends it is `egress::tls`.

mod certificates;
mod identity;
mod listener;
mod material;
mod peer;
mod spiffe;
mod trust;

pub use self::spiffe::{Spiffe, workload_api};
pub use certificates::{Certificates, Section, check, files, reload, tend};
pub use identity::is_over;
pub use listener::{InForce, Slots, incoming};
pub use peer::{ClientCertificate, TlsPeer};
