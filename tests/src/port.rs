//! Ports for listeners that a configuration must name before they exist.

/// A TCP port on 127.0.0.1 that was free a moment ago.
pub fn free() -> u16 {
    let probe = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    probe.local_addr().expect("an address").port()
}
