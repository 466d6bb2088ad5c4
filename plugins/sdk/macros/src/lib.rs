//! The derive macros of `claviger-plugin-sdk`. Reads Rust types, writes JSON schemas; nothing else.
