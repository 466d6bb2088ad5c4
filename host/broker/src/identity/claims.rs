//! What a token must say to count here and now, and what of it becomes known. Verifies no
//! signature: its input is verified already.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_core::time::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

/// What a token must say.
pub struct Expected<'a> {
    /// The claim `iss`; `None` where the token need not have one.
    pub issuer: Option<&'a str>,
    /// An audience that it must name.
    pub audience: &'a str,
    /// How long ago it may have been issued; `None` where it need not say.
    pub max_age: Option<Duration>,
    /// Now.
    pub now: Timestamp,
}

/// What a token says wrongly or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// A claim is missing or of another type.
    #[error("its claim `{0}` is missing or malformed")]
    Malformed(&'static str),
    /// Of another issuer.
    #[error("its issuer is another one")]
    Issuer,
    /// For somebody else.
    #[error("it is for another audience: ask its issuer for one with audience `{0}`")]
    Audience(String),
    /// Over.
    #[error("it has expired: fetch a new one")]
    Expired,
    /// Not yet.
    #[error("it is not valid yet: compare the clocks of the broker and the issuer")]
    Future,
    /// Kept for too long.
    #[error("it was issued more than {} ago: fetch a new one", humantime::format_duration(*.0))]
    TooOld(Duration),
    /// A claim that would become a tag is too large or no single value.
    #[error("its claim `{0}` is too large, or no single value")]
    Tag(String),
    /// The list of groups is too long or malformed.
    #[error("its groups (`{0}`) are more than {GROUPS_MAX}, too long or no list of names")]
    Groups(String),
    /// The groups are elsewhere.
    #[error("its groups (`{0}`) are too many for its issuer to list: have fewer put in")]
    GroupsElsewhere(String),
}

impl Expected<'_> {
    /// Whether `claims` say it. Both edges of the life are forgiven [`LEEWAY`].
    pub fn check(&self, claims: &Map<String, Value>) -> Result<(), ClaimError> {
        if let Some(issuer) = self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(ClaimError::Issuer);
        }
        if !audiences(claims)?.contains(&self.audience) {
            return Err(ClaimError::Audience(self.audience.to_owned()));
        }
        let (now, leeway) = (self.now.unix_secs(), LEEWAY.as_secs());
        let expires = moment(claims, "exp")?.ok_or(ClaimError::Malformed("exp"))?;
        if now >= expires.saturating_add(leeway) {
            return Err(ClaimError::Expired);
        }
        let issued = moment(claims, "iat")?;
        let not_before = moment(claims, "nbf")?;
        if [issued, not_before].into_iter().flatten().any(|at| at > now.saturating_add(leeway)) {
            return Err(ClaimError::Future);
        }
        let Some(max_age) = self.max_age else { return Ok(()) };
        let issued = issued.ok_or(ClaimError::Malformed("iat"))?;
        if now >= issued.saturating_add(max_age.as_secs()).saturating_add(leeway) {
            return Err(ClaimError::TooOld(max_age));
        }
        Ok(())
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, ClaimError> {
    let malformed = ClaimError::Malformed("aud");
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(list)) if list.len() <= AUDIENCES_MAX => {
            list.iter().map(Value::as_str).collect::<Option<_>>().ok_or(malformed)
        }
        _ => Err(malformed),
    }
}

/// Whole seconds since 1970. Some issuers write fractions.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, ClaimError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|secs| (0.0..=SECS_MAX).contains(secs))?;
        Some(Duration::from_secs_f64(seconds).as_secs())
    });
    whole.map(Some).ok_or(ClaimError::Malformed(name))
}

/// The subject, as ids hold it.
pub fn subject(claims: &Map<String, Value>) -> Result<&str, ClaimError> {
    let subject = claims.get("sub").and_then(Value::as_str);
    subject.filter(|subject| is_plain(subject)).ok_or(ClaimError::Malformed("sub"))
}

/// Whether `text` can stand in an id: short, and the same to every reader.
pub fn is_plain(text: &str) -> bool {
    let clean = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    clean && (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && text.trim() == text
}

/// The claims at `pointers` as tags. One that is absent gives no tag.
pub fn tags<'a>(
    claims: &Map<String, Value>,
    pointers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>, ClaimError> {
    let mut tags = BTreeMap::new();
    for (tag, pointer) in pointers {
        let value = match at(claims, pointer) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(value)) => value.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Array(_) | Value::Object(_)) => {
                return Err(ClaimError::Tag(tag.to_owned()));
            }
        };
        if value.len() > TAG_BYTES_MAX {
            // A claim that is cut off would be another one.
            return Err(ClaimError::Tag(tag.to_owned()));
        }
        tags.insert(tag.to_owned(), value);
    }
    Ok(tags)
}

/// A claim by its name, or by a path of names with spaces between, of objects within objects.
fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split(' ');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.as_object()?.get(name))
}

/// The groups that the claim `name` lists. More than the bound are refused, never cut: a policy
/// that forbids something to a group must see it.
pub fn groups(claims: &Map<String, Value>, name: &str) -> Result<Vec<String>, ClaimError> {
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    if elsewhere.is_some_and(|names| names.contains_key(name)) {
        return Err(ClaimError::GroupsElsewhere(name.to_owned()));
    }
    let malformed = || ClaimError::Groups(name.to_owned());
    let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
    let list = value.as_array().filter(|list| list.len() <= GROUPS_MAX).ok_or_else(malformed)?;
    let group = |value: &Value| {
        let text = value.as_str().filter(|text| (1..=TAG_BYTES_MAX).contains(&text.len()))?;
        (!text.chars().any(char::is_control)).then(|| text.to_owned())
    };
    list.iter().map(|value| group(value).ok_or_else(malformed)).collect()
}

/// What readers may call whoever the token names. Only shown.
pub fn display_name(claims: &Map<String, Value>) -> Option<String> {
    let found = NAMES.iter().find_map(|name| claims.get(*name)?.as_str())?;
    let shown: String = found.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    (!shown.is_empty()).then_some(shown)
}

/// How far the clocks of broker and issuer may be apart. A minute is what time services keep many
/// times over; more would only prolong what has expired.
pub const LEEWAY: Duration = Duration::from_mins(1);

/// Beyond this a fraction is no longer a moment (it is about the year 285,000,000).
const SECS_MAX: f64 = 9_007_199_254_740_992.0;

/// A token for more parties than these is for everybody.
const AUDIENCES_MAX: usize = 16;

/// OpenID Connect bounds a subject to 255; the paths of SPIFFE ids are bounded to 2048.
const SUBJECT_BYTES_MAX: usize = 2048;

/// Paths of repositories and workflows have a few hundred bytes.
const TAG_BYTES_MAX: usize = 512;

/// As many as large providers put into a token before they put a link to them.
const GROUPS_MAX: usize = 200;

/// Where a name for readers may stand, in the order in which it is taken.
const NAMES: [&str; 3] = ["preferred_username", "email", "name"];

/// What fits in a table.
const NAME_CHARS_MAX: usize = 128;
