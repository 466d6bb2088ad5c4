//! From the section `[identity]` to those whose word is taken. Reaches none of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use claviger_core::name::IssuerName;
use spiffe::TrustDomain;

use crate::config::{
    AwsConfig, ConfigError, ConfigFile, ReviewConfig, SpiffeConfig, TrustedIssuerConfig,
};
use crate::egress::http::{Client, SystemResolver};
use crate::egress::tls::{self, TlsError};
use crate::identity::{
    ASYMMETRIC, AwsIdentity, AwsSpec, Bundle, Identities, IssuerSpec, KeysSpec, Patience, Place,
    ReviewSpec, Spiffe, TokenReview, TrustedIssuer, Use,
};
use crate::tls::workload_api;

/// Everybody whose word is taken, or every problem with what the configuration says of them.
pub fn identities(file: &ConfigFile) -> Result<Identities, Vec<ConfigError>> {
    let config = &file.config().identity;
    let mut problems = Vec::new();
    let mut issuers = Vec::new();
    for (name, issuer) in &config.issuers {
        match trusted(file, name, issuer) {
            Ok(issuer) => issuers.push(Arc::new(issuer)),
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(told_apart(file).err());
    let aws = config.aws.as_ref().map(|aws| self::aws(file, aws)).transpose();
    let aws = aws.map_err(|problem| problems.push(problem)).ok().flatten();
    let spiffe = config.spiffe.as_ref().map(|spiffe| self::spiffe(file, spiffe)).transpose();
    let spiffe = spiffe.map_err(|problem| problems.push(problem)).ok().flatten().flatten();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Identities::new(issuers).with_aws(aws).with_spiffe(spiffe))
}

fn trusted(
    file: &ConfigFile,
    name: &IssuerName,
    config: &TrustedIssuerConfig,
) -> Result<TrustedIssuer, ConfigError> {
    let problem = |key: &str, problem: &dyn std::fmt::Display| {
        file.problem(&["identity", "issuers", name.as_str(), key], problem)
    };
    for (key, url) in [("issuer", Some(&config.issuer)), ("jwks_url", config.jwks_url.as_ref())] {
        let Some(url) = url else { continue };
        Place::parse(url, &config.reach).map_err(|error| problem(key, &error))?;
    }
    if config.audience.is_empty() {
        return Err(problem("audience", &AUDIENCE_WANTED));
    }
    if config.uses.is_empty() {
        return Err(problem("use", &"write `[\"workload\"]`, `[\"requester\"]` or both"));
    }
    if !(REFRESH_MIN..=REFRESH_MAX).contains(&config.refresh.0) {
        return Err(problem("refresh", &"write a span between `1s` and `1h`"));
    }
    if config.max_age.0 < MAX_AGE_MIN {
        return Err(problem("max_age", &"write a span of at least `1m`"));
    }
    let tags = tags(config).map_err(|error| problem("claims", &error))?;
    let spec = spec(name, config, tags);
    if let Some(asked) = &config.review {
        let review = review(file, config, asked).map_err(|error| problem("review", &error))?;
        return Ok(TrustedIssuer::reviewed(spec, review));
    }
    let client = client(file, config.ca.as_deref()).map_err(|error| problem("ca", &error))?;
    Ok(TrustedIssuer::new(spec, Arc::new(client)))
}

fn review(
    file: &ConfigFile,
    config: &TrustedIssuerConfig,
    asked: &ReviewConfig,
) -> Result<TokenReview, String> {
    let server = Place::parse(&asked.url, &config.reach).map_err(|error| error.to_string())?;
    if server.path_and_query != "/" {
        return Err("write the origin of the API server alone".to_owned());
    }
    if config.jwks_url.is_some() || config.ca.is_some() {
        return Err("the API server is asked instead of the keys: remove `jwks_url` and `ca`, or put `ca` into `review`".to_owned());
    }
    let client = client(file, asked.ca.as_deref()).map_err(|error| error.to_string())?;
    // Found at the start, and not with the first token.
    asked.token.read(file.base()).map_err(|error| error.to_string())?;
    let (token, base) = (asked.token.clone(), file.base().to_owned());
    Ok(TokenReview::new(ReviewSpec { server, token, base }, Arc::new(client)))
}

/// Who is proven by JWT-SVIDs, if the configuration says for which audience; X.509-SVIDs are the
/// listeners'.
fn spiffe(
    file: &ConfigFile,
    config: &SpiffeConfig,
) -> Result<Option<(Spiffe, Bundle)>, ConfigError> {
    let problem = |key: &str, problem: &dyn std::fmt::Display| {
        file.problem(&["identity", "spiffe", key], problem)
    };
    if config.jwt_bundle.is_none() && config.audience.is_none() {
        return Ok(None);
    }
    let Some(name) = &config.trust_domain else {
        return Err(problem("trust_domain", &"write whose JWT-SVIDs count, such as `example.org`"));
    };
    let domain = TrustDomain::new(name);
    let domain = domain.map_err(|error| problem("trust_domain", &error))?;
    let audience = config.audience.clone().unwrap_or_default();
    if audience.is_empty() {
        return Err(problem("audience", &AUDIENCE_WANTED));
    }
    let spiffe = Spiffe::new(domain, audience);
    let Some(bundle) = &config.jwt_bundle else {
        let uri = workload_api(file, config)?;
        return Ok(Some((spiffe, Bundle::Api(uri))));
    };
    let path = file.base().join(bundle);
    let unreadable = |error: &dyn std::fmt::Display| {
        problem("jwt_bundle", &format!("`{}`: {error}", path.display()))
    };
    let document = std::fs::read(&path).map_err(|error| unreadable(&error))?;
    spiffe.take_bundle(&document).map_err(|error| unreadable(&error))?;
    Ok(Some((spiffe, Bundle::File(path))))
}

/// A client of its own for each whose word is taken: none shares a connection with another.
fn client(file: &ConfigFile, ca: Option<&Path>) -> Result<Client, TlsError> {
    let ca = ca.map(|path| file.base().join(path));
    Ok(Client::new(tls::client(ca.as_deref(), None)?, Arc::new(SystemResolver)))
}

fn aws(file: &ConfigFile, config: &AwsConfig) -> Result<AwsIdentity, ConfigError> {
    let problem = |key: &str, problem: &dyn std::fmt::Display| {
        file.problem(&["identity", "aws", key], problem)
    };
    let sts = Place::parse(&config.sts_url, &config.reach);
    let sts = sts.map_err(|error| problem("sts_url", &error))?;
    if sts.path_and_query != "/" {
        return Err(problem("sts_url", &"write the origin alone: STS is asked at its path `/`"));
    }
    let id = &config.server_id;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || !(SERVER_ID_BYTES_MIN..=SERVER_ID_BYTES_MAX).contains(&id.len()) {
        return Err(problem("server_id", &SERVER_ID_WANTED));
    }
    let client = client(file, config.ca.as_deref()).map_err(|error| problem("ca", &error))?;
    let spec = AwsSpec { sts, server_id: id.clone() };
    Ok(AwsIdentity::new(spec, Arc::new(client)))
}

fn spec(
    name: &IssuerName,
    config: &TrustedIssuerConfig,
    tags: Vec<(String, String)>,
) -> IssuerSpec {
    let algorithms = match &config.algorithms {
        Some(named) => named.iter().map(|algorithm| algorithm.0).collect(),
        None => ASYMMETRIC.to_vec(),
    };
    IssuerSpec {
        name: name.clone(),
        uses: config.uses.clone(),
        audience: config.audience.clone(),
        tags,
        groups_claim: config.groups_claim.clone(),
        max_age: config.max_age.0,
        keys: KeysSpec {
            issuer: config.issuer.clone(),
            jwks_url: config.jwks_url.clone(),
            reach: config.reach.clone(),
            algorithms,
            refresh: config.refresh.0,
            patience: Patience::default(),
        },
    }
}

/// The claims that become tags: those of the configuration under their own names, or the preset's.
fn tags(config: &TrustedIssuerConfig) -> Result<Vec<(String, String)>, String> {
    let Some(claims) = &config.claims else {
        let owned = |(tag, at): &(&str, &str)| ((*tag).to_owned(), (*at).to_owned());
        return Ok(config.preset.tags().iter().map(owned).collect());
    };
    if claims.len() > TAGS_MAX {
        return Err(format!("at most {TAGS_MAX} claims become tags"));
    }
    if let Some(name) = claims.iter().find(|name| RESERVED.contains(&name.as_str())) {
        return Err(format!("`{name}` is a tag that the broker sets itself"));
    }
    Ok(claims.iter().map(|claim| (claim.clone(), claim.clone())).collect())
}

/// A token names its issuer and nothing else by which the stanza could be chosen.
fn told_apart(file: &ConfigFile) -> Result<(), ConfigError> {
    let mut seen: BTreeSet<(&str, bool)> = BTreeSet::new();
    for (name, config) in &file.config().identity.issuers {
        for used in &config.uses {
            if !seen.insert((&config.issuer, *used == Use::Workload)) {
                let keys = ["identity", "issuers", name.as_str(), "issuer"];
                let problem = "another stanza takes this issuer's tokens for the same use: join the two, or divide their `use`";
                return Err(file.problem(&keys, problem));
            }
        }
    }
    Ok(())
}

/// Groups of teams that no token could ever name.
pub fn unknown_groups(file: &ConfigFile) -> Vec<ConfigError> {
    let issuers = &file.config().identity.issuers;
    let is_known = |group: &str| {
        let issuer = group.split_once(':').and_then(|(issuer, _)| issuers.get(issuer));
        issuer.is_some_and(|issuer| issuer.uses.contains(&Use::Requester))
    };
    let mut problems = Vec::new();
    for (name, team) in &file.config().teams {
        for group in team.groups.iter().filter(|group| !is_known(group)) {
            let problem = format!(
                "`{group}`: write the name of an issuer whose `use` has `requester`, a colon, and the group as its tokens call it"
            );
            problems.push(file.problem(&["teams", name.as_str(), "groups"], problem));
        }
    }
    problems
}

const AUDIENCE_WANTED: &str = "write the audience that workloads ask tokens for, such as this broker's URL: a token for anybody else must not count here";

const SERVER_ID_WANTED: &str = "write a name of this broker that no other server has, such as its host name: 4 to 255 printable characters without spaces";

/// Shorter names are those that others have too.
const SERVER_ID_BYTES_MIN: usize = 4;

/// As long as a host name may be.
const SERVER_ID_BYTES_MAX: usize = 255;

/// What says how somebody was proven, and by whom.
const RESERVED: [&str; 2] = ["method", "issuer"];

/// Twice what the largest preset has.
const TAGS_MAX: usize = 40;

/// Faster would be a load without being more.
const REFRESH_MIN: std::time::Duration = std::time::Duration::from_secs(1);

/// A key that was withdrawn must not count for longer.
const REFRESH_MAX: std::time::Duration = std::time::Duration::from_hours(1);

/// Shorter than the leeway, and clocks decide.
const MAX_AGE_MIN: std::time::Duration = std::time::Duration::from_mins(1);

#[cfg(test)]
mod tests;
