//! What the benches share: callers that load a service, figures, and the page that shows them.
//! Starts no service; `host/broker/benches/compare` does.

pub mod load;
pub mod machine;
pub mod page;
pub mod report;
