//! Every known attack on a token, each by its name.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

use super::*;
use crate::identity::strict::StrictError;

/// The name of an attack, the token, and why it is refused.
type Attack = (&'static str, String, TokenError);

async fn check(world: &World, attacks: Vec<Attack>) {
    for (attack, token, expect) in attacks {
        assert_eq!(world.workload(&token).await.err(), Some(expect), "{attack}");
    }
    // It was the attack, and not the world.
    let principal = world.workload(&world.token()).await.unwrap();
    assert_eq!(principal.id(), "oidc:corp:agent");
}

fn malformed_header() -> TokenError {
    TokenError::Form(FormError::Header(StrictError::Malformed))
}

fn header_but(key: &Key, name: &str, value: Value) -> Value {
    let mut header = key.header();
    header[name] = value;
    header
}

#[tokio::test]
async fn a_token_that_bears_no_asymmetric_signature_of_the_issuer() {
    let world = World::new();
    let (key, text) = (&world.key, claims().to_string());
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let algorithm = || TokenError::Form(FormError::Algorithm);
    let unsigned =
        |alg: &str| format!("{}.{}.", part(&format!(r#"{{"alg":"{alg}"}}"#)), part(&text));
    let hmac_with = |secret: &[u8]| {
        let signed = format!("{}.{}", part(r#"{"alg":"HS256","kid":"one"}"#), part(&text));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let public = format!("{}{}", key.jwk["x"].as_str().unwrap(), key.jwk["y"].as_str().unwrap());
    let honest = world.token();
    let (signed, _) = honest.rsplit_once('.').unwrap();
    let attacks = vec![
        ("alg: none", unsigned("none"), algorithm()),
        ("alg: None", unsigned("None"), algorithm()),
        (
            "alg: nOnE with a signature",
            key.sign_under(&header_but(key, "alg", json!("nOnE")), &text),
            algorithm(),
        ),
        ("no alg", key.sign_text(r#"{"kid":"one"}"#, &text), algorithm()),
        ("alg that is no text", key.sign_text(r#"{"alg":7}"#, &text), malformed_header()),
        ("the public key as a shared secret", hmac_with(public.as_bytes()), algorithm()),
        ("an empty shared secret", hmac_with(b""), algorithm()),
        (
            "an honest header, no signature",
            format!("{signed}."),
            TokenError::Form(FormError::Parts),
        ),
    ];
    check(&world, attacks).await;
}

#[tokio::test]
async fn a_token_whose_signature_is_not_of_its_issuers_key() {
    let world = World::new();
    let (key, text) = (&world.key, claims().to_string());
    let stranger = Key::es256("one");
    let honest = world.token();
    let (signed, _) = honest.rsplit_once('.').unwrap();
    let other = key.sign(&claims_but(json!({ "sub": "root" })));
    let (_, other_signature) = other.rsplit_once('.').unwrap();
    let under = |name: &str, value: Value| key.sign_under(&header_but(key, name, value), &text);
    let wrong = || TokenError::Signature(SignatureError::Wrong);
    let unknown = || TokenError::Signature(SignatureError::UnknownKey);
    let other_kind = || TokenError::Signature(SignatureError::OtherAlgorithm);
    let zeros = BASE64URL_NOPAD.encode(&[0; 64]);
    let attacks = vec![
        ("the signature of other claims", format!("{signed}.{other_signature}"), wrong()),
        ("a signature of zeros", format!("{signed}.{zeros}"), wrong()),
        ("a stranger's key under the same kid", stranger.sign(&claims()), wrong()),
        ("another algorithm than the key's", under("alg", json!("RS256")), other_kind()),
        ("another curve than the key's", under("alg", json!("ES384")), other_kind()),
        ("an unknown kid", Key::es256("two").sign(&claims()), unknown()),
        ("a kid like a path", under("kid", json!("../../dev/null")), unknown()),
        ("a kid that is no text", under("kid", json!(["one"])), malformed_header()),
    ];
    check(&world, attacks).await;
}

#[tokio::test]
async fn a_token_that_brings_its_own_key_or_wants_to_be_read_otherwise() {
    let world = World::new();
    let (key, stranger, text) = (&world.key, Key::es256("one"), claims().to_string());
    let with = |name: &str, value: Value| stranger.sign_under(&header_but(key, name, value), &text);
    let own = |name| TokenError::Form(FormError::OwnKey(name));
    let extension = |name| TokenError::Form(FormError::Extension(name));
    let kind = || TokenError::Form(FormError::Kind);
    let attacks = vec![
        ("jku", with("jku", json!("https://evil.example/keys")), own("jku")),
        ("x5u", with("x5u", json!("https://evil.example/chain")), own("x5u")),
        ("jwk", with("jwk", stranger.jwk.clone()), own("jwk")),
        ("x5c", with("x5c", json!(["MIIB"])), own("x5c")),
        ("crit", with("crit", json!(["exp"])), extension("crit")),
        ("an empty crit", with("crit", json!([])), extension("crit")),
        ("b64: false", with("b64", json!(false)), extension("b64")),
        ("zip", with("zip", json!("DEF")), extension("zip")),
        (
            "a logout token by its typ",
            key.sign_under(&header_but(key, "typ", json!("logout+jwt")), &text),
            kind(),
        ),
        ("a logout token by its claims", key.sign(&claims_but(json!({ "events": {} }))), kind()),
    ];
    check(&world, attacks).await;
    assert_eq!(world.double.asked(), 1, "nobody was asked for a key but the issuer");
}

#[tokio::test]
async fn a_token_for_or_of_somebody_else() {
    let world = World::new();
    let but = |changes: Value| world.key.sign(&claims_but(changes));
    let audience = || TokenError::Claim(ClaimError::Audience("claviger".to_owned()));
    let malformed = |name| TokenError::Claim(ClaimError::Malformed(name));
    let issuer = || TokenError::UnknownIssuer;
    let attacks = vec![
        ("wrong audience", but(json!({ "aud": "vault" })), audience()),
        ("audience in other letters", but(json!({ "aud": "Claviger" })), audience()),
        ("audience with more after it", but(json!({ "aud": "claviger.evil.example" })), audience()),
        ("other audiences", but(json!({ "aud": ["vault", "sts"] })), audience()),
        ("no audience", but(json!({ "aud": null })), malformed("aud")),
        ("no audience in the list", but(json!({ "aud": [] })), audience()),
        (
            "an audience that is no text",
            but(json!({ "aud": [{ "claviger": 1 }] })),
            malformed("aud"),
        ),
        ("a hundred audiences", but(json!({ "aud": vec!["claviger"; 100] })), malformed("aud")),
        ("wrong issuer", but(json!({ "iss": "https://evil.example" })), issuer()),
        (
            "the issuer with a slash",
            but(json!({ "iss": format!("{}/", double::ISSUER) })),
            issuer(),
        ),
        ("a list of issuers", but(json!({ "iss": [double::ISSUER] })), issuer()),
        ("no issuer", but(json!({ "iss": null })), issuer()),
        ("no subject", but(json!({ "sub": null })), malformed("sub")),
        ("an empty subject", but(json!({ "sub": "" })), malformed("sub")),
        ("a subject with a line break", but(json!({ "sub": "agent\nroot" })), malformed("sub")),
        (
            "a subject that only looks like another",
            but(json!({ "sub": "аgent" })),
            malformed("sub"),
        ),
        ("a subject that is a number", but(json!({ "sub": 1 })), malformed("sub")),
    ];
    check(&world, attacks).await;
}

#[tokio::test]
async fn a_token_at_both_edges_of_its_life() {
    let world = World::new();
    let (now, leeway, age) = (now_secs(), LEEWAY.as_secs(), 3600);
    let but = |changes: Value| world.key.sign(&claims_but(changes));
    let claim = |error| Some(TokenError::Claim(error));
    let too_old = ClaimError::TooOld(Duration::from_secs(age));
    for (case, changes, expect) in [
        (
            "expired a second beyond the leeway",
            json!({ "exp": now - leeway }),
            claim(ClaimError::Expired),
        ),
        ("expired within the leeway", json!({ "exp": now - leeway + 1 }), None),
        (
            "valid only beyond the leeway",
            json!({ "nbf": now + leeway + 1 }),
            claim(ClaimError::Future),
        ),
        ("valid at the leeway", json!({ "nbf": now + leeway }), None),
        ("issued beyond the leeway", json!({ "iat": now + leeway + 1 }), claim(ClaimError::Future)),
        ("issued at the leeway", json!({ "iat": now + leeway }), None),
        ("too old", json!({ "iat": now - age - leeway }), claim(too_old)),
        ("just not too old", json!({ "iat": now - age - leeway + 1 }), None),
        ("no expiry", json!({ "exp": null }), claim(ClaimError::Malformed("exp"))),
        ("no time of issue", json!({ "iat": null }), claim(ClaimError::Malformed("iat"))),
        ("no start", json!({ "nbf": null }), None),
        ("an expiry in text", json!({ "exp": "4102444800" }), claim(ClaimError::Malformed("exp"))),
        ("an expiry before time", json!({ "exp": -1 }), claim(ClaimError::Malformed("exp"))),
        ("an expiry beyond time", json!({ "exp": 1e300 }), claim(ClaimError::Malformed("exp"))),
        ("an expiry at the end of time", json!({ "exp": u64::MAX }), None),
        ("an expiry with a fraction", json!({ "exp": now as f64 + 0.5 }), None),
        ("a start that is no number", json!({ "nbf": true }), claim(ClaimError::Malformed("nbf"))),
    ] {
        assert_eq!(world.workload(&but(changes)).await.err(), expect, "{case}");
    }
}

#[tokio::test]
async fn a_token_that_two_readers_could_read_in_two_ways() {
    let world = World::new();
    let (key, text) = (&world.key, claims().to_string());
    let twice = |name: &str, value: &str| {
        let more = format!(r#""{name}":{value}}}"#);
        key.sign_text(&key.header().to_string(), &format!("{},{more}", &text[..text.len() - 1]))
    };
    let claims_twice = || TokenError::Form(FormError::Claims(StrictError::Twice));
    let parts = || TokenError::Form(FormError::Parts);
    let honest = world.token();
    let pieces: Vec<&str> = honest.split('.').collect();
    let deep = format!(r#"{{"sub":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let header_twice = key.sign_text(r#"{"alg":"none","alg":"ES256","kid":"one"}"#, &text);
    let attacks = vec![
        ("a subject twice", twice("sub", r#""root""#), claims_twice()),
        ("an audience twice", twice("aud", r#""vault""#), claims_twice()),
        ("a claim twice by an escape", twice("su\\u0062", r#""root""#), claims_twice()),
        (
            "an algorithm twice",
            header_twice,
            TokenError::Form(FormError::Header(StrictError::Twice)),
        ),
        (
            "claims that are no object",
            key.sign_text(&key.header().to_string(), "[]"),
            TokenError::Form(FormError::Claims(StrictError::Malformed)),
        ),
        (
            "claims without a bottom",
            key.sign_text(&key.header().to_string(), &deep),
            TokenError::Form(FormError::Claims(StrictError::Malformed)),
        ),
        (
            "oversized",
            key.sign(&claims_but(json!({ "x": "y".repeat(16 * 1024) }))),
            TokenError::Form(FormError::Oversized),
        ),
        ("oversized and no token", "x".repeat(1024 * 1024), TokenError::Form(FormError::Oversized)),
        ("padded base64", format!("{}=.{}.{}", pieces[0], pieces[1], pieces[2]), parts()),
        ("a space", format!(" {honest}"), parts()),
        ("two parts", format!("{}.{}", pieces[0], pieces[1]), parts()),
        ("five parts, as an encrypted token has", format!("{honest}.a.b"), parts()),
        ("nothing", String::new(), parts()),
        ("dots", "..".to_owned(), malformed_header()),
    ];
    check(&world, attacks).await;
}

#[tokio::test]
async fn a_claim_that_is_too_large_for_a_tag_is_refused_and_not_cut() {
    let world = World::new();
    for (case, value) in [
        ("too long", json!("x".repeat(513))),
        ("a list", json!(["4711"])),
        ("an object", json!({ "4711": 1 })),
    ] {
        let token = world.key.sign(&claims_but(json!({ "repository_id": value })));
        let expect = TokenError::Claim(ClaimError::Tag("repository_id".to_owned()));
        assert_eq!(world.workload(&token).await.err(), Some(expect), "{case}");
    }
}
