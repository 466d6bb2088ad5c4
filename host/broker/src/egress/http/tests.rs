//! The door against real servers on this machine.
