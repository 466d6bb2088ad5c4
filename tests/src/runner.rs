//! GitHub's runner, in small: it gives a job's token for an audience to whoever has its secret.

use axum::http::{HeaderMap, Uri};
use axum::routing::get;
use serde_json::json;

/// The two variables of a job, with which it asks for its token. The token is `token`, and counts
/// for `audience` (as it stands in a query) alone.
pub async fn variables(token: String, audience: &str) -> [(&'static str, String); 2] {
    let wanted = format!("&audience={audience}");
    let answer = async move |uri: Uri, headers: HeaderMap| {
        let asked = uri.query().unwrap_or_default().ends_with(&wanted);
        let known =
            headers.get("authorization").is_some_and(|value| value == "Bearer runner-secret");
        json!({ "value": if asked && known { token } else { String::new() } }).to_string()
    };
    let routes = axum::Router::new().route("/token", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/token?job=1", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", url),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runner-secret".to_owned()),
    ]
}
