//! What is refused at load, and what the operator is told to write.

use super::hostile::load_errors;
use super::*;

#[tokio::test]
async fn another_digest_than_pinned_is_refused() {
    let spec = PluginSpec { sha256_pin: Some([7; 32]), ..plugin(POSTGRES) };
    let errors = load_errors(spec, bare_backend()).await;
    assert!(errors.contains("pins 0707"), "{errors}");
    assert!(errors.contains("\nsha256 = \""), "{errors}");
}

#[tokio::test]
async fn too_large_and_not_wasm_are_refused() {
    let mut padded = plugin(POSTGRES).bytes;
    let padding = 4 * 1024 * 1024_u32;
    // A custom section of an empty name, its length in five bytes of LEB128.
    padded.extend([0, 0x81, 0x80, 0x80, 0x82, 0x00, 0]);
    padded.resize(padded.len() + padding as usize, 0);
    for (bytes, sentence) in [
        (vec![0; 32 * 1024 * 1024 + 1], "at most 33554432 are loaded"),
        (padded, "at most 4194304 are loaded"),
        (b"hello".to_vec(), "not a WebAssembly component"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "has no manifest"),
    ] {
        let spec = PluginSpec { bytes, ..plugin(POSTGRES) };
        let errors = load_errors(spec, bare_backend()).await;
        assert!(errors.contains(sentence), "{errors}");
    }
}

#[tokio::test]
async fn a_second_manifest_is_refused() {
    let mut spec = plugin(POSTGRES);
    let name = b"claviger:manifest";
    spec.bytes.extend([0, 1 + 17 + 2, 17]);
    spec.bytes.extend(name);
    spec.bytes.extend(b"{}");
    let errors = load_errors(spec, bare_backend()).await;
    assert!(errors.contains("has 2 manifests"), "{errors}");
}

#[tokio::test]
async fn a_connection_that_is_not_granted_prints_the_stanza() {
    let errors = load_errors(plugin(POSTGRES), bare_backend()).await;
    assert!(errors.contains("no backend binds a connection of kind `sql`"), "{errors}");
    let mut backend = database_backend(server());
    let admin = backend.connections.remove("admin").unwrap();
    backend.connections.insert("amdin".parse().unwrap(), admin);
    let errors = load_errors(plugin(POSTGRES), backend).await;
    assert!(errors.contains("connection `amdin` is not one that the plugin asks for"), "{errors}");
    assert!(errors.contains("[backends.backend.connections.admin]\naddress = \""), "{errors}");
}

#[tokio::test]
async fn settings_and_parameters_must_match_the_schemas() {
    let backend = BackendSpec {
        settings: serde_json::json!({"scram_iterations": 0, "typo": 1}),
        scopes: BTreeMap::from([("readonly".to_owned(), serde_json::json!({}))]),
        ..database_backend(server())
    };
    let errors = load_errors(plugin(POSTGRES), backend).await;
    for problem in ["`/settings/scram_iterations`", "'typo'", "`/scopes/readonly`", "grant_role"] {
        assert!(errors.contains(problem), "{errors}");
    }
}

#[tokio::test]
async fn the_plugin_itself_has_the_last_word_on_its_configuration() {
    let scope = serde_json::json!({"grant_role": "pg_execute_server_program"});
    let backend = BackendSpec {
        scopes: BTreeMap::from([("readonly".to_owned(), scope)]),
        ..database_backend(server())
    };
    let errors = load_errors(plugin(POSTGRES), backend).await;
    assert!(errors.contains("`/scopes/readonly/grant_role`"), "{errors}");
    assert!(errors.contains("predefined role"), "{errors}");
}

#[tokio::test]
async fn a_backend_without_its_plugin_is_named() {
    let sandbox = Sandbox::start(patient()).unwrap();
    let loaded =
        Plugins::load_on(sandbox, vec![], vec![bare_backend()], observer(&Seen::default()));
    let errors = messages(&loaded.err().unwrap());
    assert!(errors.contains("add `[plugins.plugin]`"), "{errors}");
}

#[tokio::test]
async fn the_manifest_is_there_for_the_catalog() {
    let fixture = Fixture::load(POSTGRES, database_backend(server())).await;
    let name = "plugin".parse().unwrap();
    let (manifest, sha256) = fixture.plugins.manifest(&name).unwrap();
    assert_eq!(manifest.ttl_min().as_secs(), 1);
    assert_ne!(sha256, &[0; 32]);
}
