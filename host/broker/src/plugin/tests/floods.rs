//! Attacks by quantity: processor time in one instruction, handles, text, random bytes, leases.
//! Each names what stops it.

use claviger_core::ports::PluginErrorKind;

use super::*;

/// What `component` reports or how it fails, with these parameters.
async fn attack(fixture: &Fixture, parameters: &str) -> Result<String, PluginError> {
    let request = |settings: &str| issue_request(intent(), settings, parameters);
    let issued = fixture.plugins.mint(&"backend".parse().unwrap(), request).await?;
    Ok(fields(issued)["report"].clone())
}

async fn flooder(component: &str, backend: BackendSpec) -> Fixture {
    Fixture::load(&format!("hostile/{component}"), backend).await
}

async fn check(component: &str, parameters: &str, sentence: &str) {
    let fixture = Fixture::load(&format!("hostile/{component}"), bare_backend()).await;
    let error = attack(&fixture, parameters).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Sandbox, "{error}");
    assert!(error.message.contains(sentence), "{parameters}: {error}");
    fixture.revoke(intent()).await.expect("an honest call of the same plugin is served");
}

#[tokio::test]
async fn bulk_instructions_end_with_the_processor_time() {
    check("bulk_memory", "{}", "more processor time").await;
}

#[tokio::test]
async fn random_bytes_are_limited_in_size_and_by_time() {
    check("random_flood", r#"{"portions": "one"}"#, "exceeds limit 4096").await;
    check("random_flood", "{}", "more processor time").await;
}

#[tokio::test]
async fn a_flood_of_secrets_is_refused_politely() {
    let server = server();
    let fixture = flooder("handle_flood", database_backend(server)).await;
    let report = attack(&fixture, r#"{"of": "secrets"}"#).await.unwrap();
    assert_eq!(report, "16 made: a call makes and takes at most 16 secrets");
    let report = attack(&fixture, r#"{"of": "connections"}"#).await.unwrap();
    assert_eq!(report, "2 made: a call has at most 2 connections open at a time: drop one first");
    let report = attack(&fixture, r#"{"of": "rows"}"#).await.unwrap();
    assert_eq!(report, "64 made: a call runs at most 64 statements");
}

#[tokio::test]
async fn a_flood_of_statements_fills_the_table_of_its_own_call_only() {
    let fixture = flooder("handle_flood", database_backend(server())).await;
    let error = attack(&fixture, r#"{"of": "statements"}"#).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Sandbox, "{error}");
    assert!(error.message.contains("handle limit exceeded"), "{error}");
    fixture.revoke(intent()).await.expect("an honest call of the same plugin is served");
}

#[tokio::test]
async fn a_string_of_megabytes_does_not_enter_the_host() {
    for into in ["log", "fields", "lease", "handle", "error"] {
        let parameters = format!(r#"{{"into": "{into}", "bytes": "2000000"}}"#);
        check("huge_strings", &parameters, "fuel").await;
    }
}

#[tokio::test]
async fn of_long_text_a_documented_part_is_kept() {
    let fixture = Fixture::load("hostile/huge_strings", bare_backend()).await;
    let error = attack(&fixture, r#"{"into": "error", "bytes": "400000"}"#).await.unwrap_err();
    assert_eq!((error.message.len(), error.code.unwrap().len()), (1024, 64));
    let error = attack(&fixture, r#"{"into": "handle", "bytes": "400000"}"#).await.unwrap_err();
    assert!(error.message.contains("at most 4 KiB"), "{}", error.message);
    attack(&fixture, r#"{"into": "log", "bytes": "400000"}"#).await.unwrap();
}

#[tokio::test]
async fn problems_of_a_configuration_are_few_short_and_printable() {
    for (problems, bytes) in [(1, 900_000), (10_000, 10), (32, 20_000)] {
        let settings = serde_json::json!({
            "problems": problems.to_string(), "problem-bytes": bytes.to_string()
        });
        let backend = BackendSpec { settings, ..bare_backend() };
        let errors = super::hostile::load_errors(plugin("hostile/huge_strings"), backend).await;
        assert!(errors.len() <= 32 * 2_200, "{} bytes of problems", errors.len());
        assert!(errors.lines().count() <= 32, "{} lines", errors.lines().count());
        assert!(!errors.contains('\u{1b}'), "a problem moves the operator's cursor");
    }
}

#[tokio::test]
async fn a_list_of_megabytes_of_problems_does_not_enter_the_host() {
    let settings = serde_json::json!({"problems": "100", "problem-bytes": "100000"});
    let backend = BackendSpec { settings, ..bare_backend() };
    let errors = super::hostile::load_errors(plugin("hostile/huge_strings"), backend).await;
    assert!(errors.contains("fuel"), "{errors}");
}

#[tokio::test]
async fn a_lease_holds_what_the_manifest_names_and_no_more() {
    let fixture = flooder("huge_lease", bare_backend()).await;
    assert_eq!(attack(&fixture, "{}").await.unwrap(), "2004", "each excess is refused by itself");
}

#[tokio::test]
async fn a_trap_while_a_handle_is_dropped_leaves_no_lease() {
    check("trap_in_drop", "{}", "trap in drop").await;
}

#[tokio::test]
async fn a_trap_after_the_answer_undoes_the_answer() {
    check("trap_in_drop", r#"{"when": "afterwards"}"#, "panicked").await;
}
