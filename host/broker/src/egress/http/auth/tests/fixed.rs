//! Credentials that are sent as they are: bearer, basic, a header of the service's own.

use super::*;

fn named(name: &str) -> HttpAuth {
    HttpAuth::Header { name: name.to_owned(), value: secret("k") }
}

#[tokio::test]
async fn each_arrives_as_its_service_expects_it_over_whatever_the_guest_wrote() {
    let basic = HttpAuth::Basic { user: "Aladdin".to_owned(), password: secret("open sesame") };
    let header = HttpAuth::Header { name: "X-Api-Key".to_owned(), value: secret("key-1") };
    let cases = [
        (HttpAuth::Bearer { token: secret("tok-1") }, "authorization", "Bearer tok-1"),
        // The example of RFC 7617, section 2.
        (basic, "authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (header, "x-api-key", "key-1"),
    ];
    let server = Server::start().await;
    for (auth, name, expect) in cases {
        let authenticator = authenticator(auth);
        let mut outgoing = get("/a?b=c");
        outgoing.headers.append(name, "forged".parse().unwrap());
        outgoing.headers.append(name, "twice".parse().unwrap());
        assert!(send(&authenticator, &server, outgoing).await.is_empty());
        let seen = server.only();
        assert_eq!((seen.uri.as_str(), seen.header(name)), ("/a?b=c", expect));
        assert_eq!(seen.headers.get_all(name).iter().count(), 1);
    }
}

#[tokio::test]
async fn nothing_is_added_where_nothing_is_configured() {
    let server = Server::start().await;
    let authenticator = authenticator(HttpAuth::None);
    assert!(send(&authenticator, &server, get("/")).await.is_empty());
    assert!(server.only().headers.get("authorization").is_none());
    assert!(authenticator.root_secrets().is_empty());
}

#[tokio::test]
async fn a_credential_in_a_header_is_marked_and_its_forms_are_known() {
    let auth = HttpAuth::Basic { user: "u".to_owned(), password: secret("hunter2") };
    let authenticator = authenticator(auth);
    let mut outgoing = get("/");
    let route = Server::start().await.route();
    authenticator.apply(&route, &mut outgoing, end()).await.unwrap();
    assert!(outgoing.headers["authorization"].is_sensitive());
    let roots: Vec<_> = authenticator.root_secrets().iter().map(|s| s.to_string()).collect();
    assert_eq!(roots, ["hunter2", "dTpodW50ZXIy"]);
}

#[test]
fn refuses_what_no_request_could_carry() {
    let cases = [
        (named("no name"), "`no name` is not a header"),
        (named("Host"), "`Host` is not a header"),
        (named("transfer-encoding"), "is not a header"),
        (HttpAuth::Bearer { token: secret("a\nb") }, "the token holds a character"),
        (HttpAuth::Header { name: "x-k".to_owned(), value: secret("") }, "`value` is empty"),
        (HttpAuth::Basic { user: "a:b".to_owned(), password: secret("p") }, "with a colon"),
    ];
    for (auth, sentence) in cases {
        let error = refused(auth).to_string();
        assert!(error.contains(sentence), "{error}");
    }
}
