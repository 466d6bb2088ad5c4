//! What the section `[identity]` may say, and what is said of it when it may not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::path::Path;

use super::*;

const REST: &str = "[listen]\nsocket = \"a\"\nadmin_socket = \"b\"\n\
    [journal]\npath = \"j\"\nsealing_key = \"file:key\"\n\
    [policies]\npath = \"p\"\n[prompts]\npath = \"p\"\n";

const GOOD: &str = "[identity.issuers.ci]\npreset = \"github-actions\"\nuse = [\"workload\"]\n\
    issuer = \"https://token.actions.githubusercontent.com\"\naudience = \"claviger\"\n";

fn loaded(text: &str) -> Result<usize, String> {
    let file = ConfigFile::parse(Path::new("c.toml"), format!("{REST}{text}"));
    let file = file.map_err(|error| error.to_string())?;
    let joined = |problems: Vec<ConfigError>| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let found = identities(&file).map_err(joined)?;
    let unknown = unknown_groups(&file);
    if unknown.is_empty() { Ok(found.issuers().len()) } else { Err(joined(unknown)) }
}

#[test]
fn says_what_is_wrong_with_an_issuer_and_where() {
    assert_eq!(loaded(""), Ok(0));
    assert_eq!(loaded(GOOD), Ok(1));
    for (good, bad, sentence) in [
        ("\"claviger\"", "\"\"", "`identity.issuers.ci.audience`: write the audience"),
        ("audience = \"claviger\"\n", "", "missing field `audience`"),
        ("[\"workload\"]", "[]", "`identity.issuers.ci.use`: write"),
        ("[\"workload\"]", "[\"operator\"]", "unknown variant `operator`"),
        ("\"github-actions\"", "\"gitea\"", "unknown variant `gitea`"),
        ("https://", "http://", "over plain HTTP"),
        (
            "https://token.actions.githubusercontent.com",
            "https://127.0.0.1:1",
            "grant it with `reach",
        ),
        ("https://token", "https://user:pass@token", "is no address"),
        ("use =", "refresh = \"1ms\"\nuse =", "between `1s` and `1h`"),
        ("use =", "max_age = \"1s\"\nuse =", "at least `1m`"),
        ("use =", "ca = \"no.pem\"\nuse =", "no.pem"),
        ("use =", "jwks_url = \"keys\"\nuse =", "`identity.issuers.ci.jwks_url`"),
        ("use =", "algorithms = [\"HS256\"]\nuse =", "`HS256` is no asymmetric signature"),
        ("use =", "algorithms = [\"none\"]\nuse =", "`none` is no asymmetric signature"),
        ("use =", "claims = [\"method\"]\nuse =", "`method` is a tag that the broker sets itself"),
        ("use =", "colour = 1\nuse =", "colour"),
    ] {
        let error = loaded(&GOOD.replacen(good, bad, 1)).unwrap_err();
        assert!(error.contains(sentence), "{bad}: {error}");
        assert!(!error.contains("pass@"), "{error}");
    }
}

#[test]
fn says_what_is_wrong_with_aws_and_where() {
    let good = "[identity.aws]\nsts_url = \"https://sts.example\"\nserver_id = \"claviger\"\n";
    assert_eq!(loaded(good), Ok(0));
    for (from, to, sentence) in [
        ("https://sts.example", "https://sts.example/path", "write the origin alone"),
        ("https://sts.example", "http://sts.example", "over plain HTTP"),
        ("\"claviger\"", "\"a b c d\"", "`identity.aws.server_id`: write a name"),
        ("\"claviger\"", "\"\"", "`identity.aws.server_id`: write a name"),
        ("server_id = \"claviger\"\n", "", "missing field `server_id`"),
    ] {
        let error = loaded(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(sentence), "{to}: {error}");
    }
}

#[test]
fn one_issuer_has_one_stanza_for_one_use() {
    let twin = GOOD.replace("issuers.ci", "issuers.twin");
    let error = loaded(&format!("{GOOD}{twin}")).unwrap_err();
    assert!(error.contains("another stanza takes this issuer's tokens"), "{error}");
    assert_eq!(loaded(&format!("{GOOD}{}", twin.replace("workload", "requester"))), Ok(2));
}

#[test]
fn a_team_has_groups_of_issuers_that_prove_requesters() {
    let corp = GOOD.replace("issuers.ci", "issuers.corp").replace("workload", "requester");
    let team = |group: &str| {
        format!("{GOOD}{corp}[teams.t]\ngroups = [\"{group}\"]\n").replacen(
            "token.actions",
            "ci",
            1,
        )
    };
    assert_eq!(loaded(&team("corp:payments")), Ok(2));
    for group in ["payments", "nobody:payments", "ci:payments"] {
        let error = loaded(&team(group)).unwrap_err();
        assert!(error.contains("`teams.t.groups`"), "{group}: {error}");
    }
}
