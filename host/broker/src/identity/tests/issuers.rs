//! What becomes of an issuer's keys: found, rotated, swapped, gone, out of reach.

use super::*;

#[tokio::test]
async fn its_claims_become_an_id_and_tags() {
    let world = World::new();
    let principal = world.workload(&world.token()).await.unwrap();
    assert_eq!(principal.id(), "oidc:corp:agent");
    let tags: Vec<_> = principal.claims().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expect =
        [("issuer", "corp"), ("method", "oidc"), ("namespace", "shop"), ("repository_id", "4711")];
    assert_eq!(tags, expect);
    assert_eq!(principal.signer().unwrap().issuer, "corp");
}

#[tokio::test]
async fn an_issuer_counts_only_for_what_it_is_trusted_with() {
    let world = World::with(|spec| spec.uses = vec![Use::Requester]);
    assert_eq!(world.workload(&world.token()).await.err(), Some(TokenError::UnknownIssuer));
    let local = Principal::from_unix_peer(1, 1);
    assert!(world.requester(&world.token(), &local).await.is_ok());
    let world = World::with(|spec| spec.uses = vec![Use::Workload]);
    let refused = world.requester(&world.token(), &local).await.err();
    assert_eq!(refused, Some(TokenError::UnknownIssuer));
}

#[tokio::test]
async fn a_signature_counts_only_if_the_configuration_allows_it() {
    let world = World::with(|spec| spec.keys.algorithms = vec!["EdDSA".parse().unwrap()]);
    // Its only key makes other signatures, so it has none that count.
    let expect = TokenError::Unavailable("corp".to_owned());
    assert_eq!(world.workload(&world.token()).await.err(), Some(expect));
    let edwards = Key::edwards("one");
    world.double.publish(&[&edwards]);
    let world = World { key: edwards, ..World::with_double(&world) };
    world.workload(&world.token()).await.unwrap();
}

#[tokio::test]
async fn a_new_key_is_fetched_once_however_many_ask_for_it() {
    let world = World::new();
    world.workload(&world.token()).await.unwrap();
    assert_eq!(world.double.asked(), 1);
    let impatient = World::with_double(&world);
    let second = Key::es256("two");
    world.double.publish(&[&world.key, &second]);
    let token = second.sign(&claims());
    // The first of these fetches, the others wait for it and find what it fetched.
    let all = tokio::join!(
        impatient.workload(&token),
        impatient.workload(&token),
        impatient.workload(&token),
        impatient.workload(&token),
    );
    assert!([all.0, all.1, all.2, all.3].iter().all(Result::is_ok));
    assert_eq!(world.double.asked(), 2);
}

#[tokio::test]
async fn made_up_keys_do_not_make_the_broker_ask_again_and_again() {
    let world = World::new();
    world.workload(&world.token()).await.unwrap();
    for n in 0..50 {
        let token = Key::es256(&format!("made-up-{n}")).sign(&claims());
        let expect = TokenError::Signature(SignatureError::UnknownKey);
        assert_eq!(world.workload(&token).await.err(), Some(expect));
    }
    // Without the pause, the first of them would have asked a second time, and so on.
    assert_eq!(world.double.asked(), 1);
    world.workload(&world.token()).await.unwrap();
}

#[tokio::test]
async fn a_rotation_is_followed_and_a_swapped_set_takes_the_old_keys_away() {
    let world = World::with(|spec| spec.keys.patience.refetch = Duration::ZERO);
    let old = world.token();
    world.workload(&old).await.unwrap();
    let second = Key::es256("two");
    world.double.publish(&[&second]);
    // As long as nobody needs a new one, the kept keys count.
    world.workload(&old).await.unwrap();
    world.workload(&second.sign(&claims())).await.unwrap();
    let expect = TokenError::Signature(SignatureError::UnknownKey);
    assert_eq!(world.workload(&old).await.err(), Some(expect));
}

#[tokio::test]
async fn an_outage_takes_no_key_away_until_it_has_lasted_too_long() {
    let world = World::with(|spec| spec.keys.patience.refetch = Duration::ZERO);
    world.workload(&world.token()).await.unwrap();
    let unknown = Key::es256("two").sign(&claims());
    for (case, status, body) in [
        ("an error", 500, "{}"),
        ("a redirect", 302, "{}"),
        ("no JSON", 200, "<html>"),
        ("no keys", 200, r#"{"keys":[]}"#),
        ("a key twice", 200, r#"{"keys":[],"keys":[]}"#),
        ("keys that none can use", 200, r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"two"}]}"#),
    ] {
        world.double.answer("/keys", status, body);
        let asked = world.double.asked();
        let expect = TokenError::Signature(SignatureError::UnknownKey);
        assert_eq!(world.workload(&unknown).await.err(), Some(expect), "{case}");
        assert!(world.double.asked() > asked, "{case}: it was not asked");
        world.workload(&world.token()).await.expect(case);
    }
    let hasty = World::with(|spec| spec.keys.patience.trusted = Duration::ZERO);
    let expect = TokenError::Unavailable("corp".to_owned());
    assert_eq!(hasty.workload(&hasty.token()).await.err(), Some(expect));
}

#[tokio::test]
async fn a_discovery_document_must_be_the_issuers_own() {
    for (case, document) in [
        (
            "of another",
            json!({ "issuer": "https://evil.example", "jwks_uri": "https://id.corp.example/keys" }),
        ),
        (
            "with a slash",
            json!({ "issuer": "https://id.corp.example/", "jwks_uri": "https://id.corp.example/keys" }),
        ),
        ("without keys", json!({ "issuer": double::ISSUER })),
        (
            "with keys in the clear",
            json!({ "issuer": double::ISSUER, "jwks_uri": "http://id.corp.example/keys" }),
        ),
        ("with keys in a file", json!({ "issuer": double::ISSUER, "jwks_uri": "file:///keys" })),
    ] {
        let world = World::new();
        let path = "/.well-known/openid-configuration";
        world.double.answer(path, 200, &document.to_string());
        let expect = TokenError::Unavailable("corp".to_owned());
        assert_eq!(world.workload(&world.token()).await.err(), Some(expect), "{case}");
        assert_eq!(world.double.asked(), 0, "{case}");
    }
}

#[tokio::test]
async fn several_keys_need_a_name_and_a_name_must_be_of_one() {
    let world = World::with(|spec| spec.keys.patience.refetch = Duration::ZERO);
    let nameless = world.key.sign_under(&json!({ "alg": "ES256" }), &claims().to_string());
    world.workload(&nameless).await.unwrap();
    let other = Key::es256("two");
    world.double.publish(&[&world.key, &other]);
    world.workload(&other.sign(&claims())).await.unwrap();
    let expect = TokenError::Signature(SignatureError::KeyNotNamed);
    assert_eq!(world.workload(&nameless).await.err(), Some(expect.clone()));
    let (third, twin) = (Key::es256("three"), Key::es256("three"));
    world.double.publish(&[&third, &twin]);
    assert_eq!(world.workload(&twin.sign(&claims())).await.err(), Some(expect));
}

#[tokio::test]
async fn keys_for_other_ends_are_left_out() {
    for (case, name, value) in [
        ("for encryption", "use", json!("enc")),
        ("that only sign", "key_ops", json!(["sign"])),
        ("of another algorithm", "alg", json!("ES384")),
        ("of an unknown algorithm", "alg", json!("ES256K")),
        ("of a shared secret", "kty", json!("oct")),
        ("of another curve", "crv", json!("P-384")),
        ("with half a point", "x", json!("AAAA")),
    ] {
        let world = World::new();
        let mut jwk = world.key.jwk.clone();
        jwk[name] = value;
        world.double.answer("/keys", 200, &json!({ "keys": [jwk] }).to_string());
        let expect = TokenError::Unavailable("corp".to_owned());
        assert_eq!(world.workload(&world.token()).await.err(), Some(expect), "{case}");
    }
    let short = json!({ "keys": [{ "kty": "RSA", "n": "AQAB".repeat(40), "e": "AQAB" }] });
    assert!(keys::KeySet::parse(short.to_string().as_bytes(), &ASYMMETRIC).is_err(), "short RSA");
}

impl World {
    /// The same issuer, trusted by somebody who holds nothing back.
    fn with_double(other: &Self) -> Self {
        let mut spec = spec();
        spec.keys.patience.refetch = Duration::ZERO;
        let double = Arc::clone(&other.double);
        let issuer = TrustedIssuer::new(spec, Arc::clone(&double) as Arc<_>);
        let identities = Identities::new(vec![Arc::new(issuer)]);
        Self { double, key: Key::es256("unused"), identities }
    }
}
