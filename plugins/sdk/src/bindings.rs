//! The types and calls that wit-bindgen makes of `wit/`. Nothing is written by hand here; on
//! other targets than WebAssembly `native.rs` takes its place.

#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated: the documentation stands in the WIT, the ABI needs raw pointers"
)]

wit_bindgen::generate!({
    path: [
        "../../wit/types",
        "../../wit/sql",
        "../../wit/egress",
        "../../wit/jwt",
        "../../wit/log",
        "../../wit/provider",
    ],
    world: "claviger:provider/plugin",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "claviger_plugin_sdk::bindings",
});

/// The ability to end several credentials at once: a world of its own over the same imports.
pub mod batch {
    wit_bindgen::generate!({
        path: [
            "../../wit/types",
            "../../wit/sql",
            "../../wit/egress",
            "../../wit/jwt",
            "../../wit/log",
            "../../wit/provider",
            "../../wit/batch",
        ],
        world: "claviger:batch/batch",
        with: {
            "claviger:types/errors@0.1.0": crate::bindings::claviger::types::errors,
            "claviger:types/secrets@0.1.0": crate::bindings::claviger::types::secrets,
            "claviger:provider/calls@0.1.0": crate::bindings::claviger::provider::calls,
        },
        pub_export_macro: true,
        export_macro_name: "export_batch",
        default_bindings_module: "claviger_plugin_sdk::bindings::batch",
    });
}

/// The ability to replace root credentials: another one.
pub mod rotating {
    wit_bindgen::generate!({
        path: [
            "../../wit/types",
            "../../wit/sql",
            "../../wit/egress",
            "../../wit/jwt",
            "../../wit/log",
            "../../wit/provider",
        ],
        world: "claviger:provider/rotating",
        with: {
            "claviger:types/errors@0.1.0": crate::bindings::claviger::types::errors,
            "claviger:types/secrets@0.1.0": crate::bindings::claviger::types::secrets,
            "claviger:provider/rotation-calls@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_rotation",
        default_bindings_module: "claviger_plugin_sdk::bindings::rotating",
    });
}

/// The ability to have the backend make and delete root credentials: another one.
pub mod key_rotating {
    wit_bindgen::generate!({
        path: [
            "../../wit/types",
            "../../wit/sql",
            "../../wit/egress",
            "../../wit/jwt",
            "../../wit/log",
            "../../wit/provider",
        ],
        world: "claviger:provider/key-rotating",
        with: {
            "claviger:types/errors@0.1.0": crate::bindings::claviger::types::errors,
            "claviger:types/secrets@0.1.0": crate::bindings::claviger::types::secrets,
            "claviger:provider/key-rotation-calls@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_key_rotation",
        default_bindings_module: "claviger_plugin_sdk::bindings::key_rotating",
    });
}
