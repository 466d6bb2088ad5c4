//! Fails when the committed code no longer matches the `.proto` files.
//! `UPDATE_GENERATED=1 cargo test -p claviger-proto` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;

use prost::Message as _;

#[test]
fn generated_code_matches_the_proto_files() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("a temporary folder");
    generate(here, fresh.path());
    for name in ["claviger.v1.rs", "claviger.v1.bin"] {
        let committed = here.join("src/gen").join(name);
        let wanted = std::fs::read(fresh.path().join(name)).expect("generated");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&committed, &wanted).expect("writable");
        }
        let found = std::fs::read(&committed).unwrap_or_default();
        assert!(
            found == wanted,
            "{} does not match the .proto files: run `UPDATE_GENERATED=1 cargo test -p claviger-proto`",
            committed.display()
        );
    }
}

fn generate(here: &Path, out: &Path) {
    let files = ["claviger/v1/agent.proto", "claviger/v1/admin.proto", "claviger/v1/secrets.proto"];
    let descriptors = protox::compile(files, [here]).expect("the .proto files compile");
    std::fs::write(out.join("claviger.v1.bin"), descriptors.encode_to_vec()).expect("writable");
    tonic_prost_build::configure()
        .out_dir(out)
        // A value that is put must not stand in a log because somebody printed a request.
        .skip_debug(["claviger.v1.PutSecretRequest"])
        .compile_fds(descriptors)
        .expect("code is generated");
}
