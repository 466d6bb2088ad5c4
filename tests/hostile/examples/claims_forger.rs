//! Attacks the broker's signature: asks for tokens about somebody else, for others than the
//! operator granted, and beyond the end of the credential. `report` must name none of them.
//!
//! A call signs few tokens, so the parameter `from` tells with which attempt to begin; the report
//! is `done` when none is left.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease, jwt};

struct ClaimsForger;

claviger_plugin_sdk::export!(Hostile<ClaimsForger>, manifest = "jwt.json");

impl Attack for ClaimsForger {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        let end = request.expires_at;
        let mut tries: Vec<_> = CLAIMS.iter().map(|claims| (AUDIENCE, *claims, end)).collect();
        tries.extend(AUDIENCES.iter().map(|audience| (*audience, "{}", end)));
        tries.extend([0, request.now, end + 1, u64::MAX].map(|end| (AUDIENCE, "{}", end)));
        let large = format!(r#"{{"filler": "{}"}}"#, "x".repeat(4096));
        tries.push((AUDIENCE, &large, end));
        let from = request.parameters.get("from").and_then(|from| from.parse().ok());
        let now: Vec<_> = tries.into_iter().skip(from.unwrap_or_default()).take(AT_ONCE).collect();
        let tried = now.len();
        let mut signed: Vec<_> = now
            .into_iter()
            .filter(|(audience, claims, end)| jwt::sign("issuer", audience, claims, *end).is_ok())
            .map(|(audience, claims, end)| format!("`{audience}` `{claims}` {end}"))
            .collect();
        if jwt::sign("another", AUDIENCE, "{}", end).is_ok() {
            signed.push("by another connection".to_owned());
        }
        // Honest, so that the refusals are not those of an issuer that signs nothing.
        let honest = jwt::sign("issuer", AUDIENCE, r#"{"team": "none"}"#, end)?;
        lease.set_secret("token", &honest)?;
        Ok(if tried == 0 {
            "done".to_owned()
        } else if signed.is_empty() {
            "nothing".to_owned()
        } else {
            signed.join("\n")
        })
    }
}

/// With the two others, below the 16 of a call.
const AT_ONCE: usize = 12;

const AUDIENCE: &str = "sts.example";

/// Others than the granted one, some of them to a careless eye.
const AUDIENCES: [&str; 6] =
    ["", "payroll.example", "STS.example", "sts.example ", "sts.example\0", "[\"sts.example\"]"];

const CLAIMS: [&str; 16] = [
    r#"{"iss": "https://evil.example"}"#,
    r#"{"sub": "backend:backend:role:admin"}"#,
    r#"{"aud": "payroll.example"}"#,
    r#"{"iat": 0}"#,
    r#"{"nbf": 0}"#,
    r#"{"exp": 99999999999}"#,
    r#"{"jti": "another"}"#,
    r#"{"claviger": {"role": "admin"}}"#,
    r#"{"cnf": {"jkt": "another"}}"#,
    // The same name in another spelling, which a parser downstream reads alike.
    r#"{"\u0073ub": "admin"}"#,
    // Of two, verifiers disagree on which counts.
    r#"{"team": "a", "team": "b"}"#,
    r#"{"deep": {"team": "a", "team": "b"}}"#,
    r#"{"team": "a"} {"sub": "admin"}"#,
    r#"["sub"]"#,
    "null",
    "",
];
