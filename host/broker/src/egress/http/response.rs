//! A response as a guest may see it: hidden, unless a place in it was granted; and even then
//! without known secrets. Moves no bytes.

use std::sync::Arc;

use http::HeaderMap;
use zeroize::Zeroizing;

use super::document::{Document, Found};
use super::exchange::Incoming;
use super::headers;
use super::location::Location;
use super::policy::Policy;
use crate::egress::redact::{Redactor, SharedSecret};
use crate::egress::{Failure, FailureKind};

/// A response in the host's hands.
pub struct GuestResponse {
    status: u16,
    headers: HeaderMap,
    document: Document,
    policy: Arc<Policy>,
}

impl GuestResponse {
    /// One that is read as `policy` allows.
    pub fn new(incoming: &Incoming, policy: Arc<Policy>) -> Self {
        Self {
            status: incoming.status.as_u16(),
            headers: incoming.headers.clone(),
            document: Document::read(&incoming.headers, &incoming.body),
            policy,
        }
    }

    /// The status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// A header, if every plugin may read it.
    pub fn header(&self, name: &str, redactor: &Redactor) -> Option<String> {
        let name = name.to_ascii_lowercase();
        if !headers::is_visible(&name) {
            return None;
        }
        let value = headers::shown(&name, self.headers.get(&name)?)?;
        Some(redactor.clean_whole(&value))
    }

    /// The body with everything hidden that was not granted.
    pub fn body(&self, redactor: &Redactor) -> String {
        self.document.render(
            |steps, text| self.policy.may_read(steps).then(|| redactor.clean_value(text)),
            |name| redactor.clean_value(name),
        )
    }

    /// The scalar at a granted location.
    pub fn read(&self, location: &str, redactor: &Redactor) -> Result<Option<String>, Failure> {
        let location = Location::parse(location).map_err(refusal)?;
        self.policy.admit_read(&location)?;
        Ok(self.find(&location)?.map(|text| redactor.clean_value(text)))
    }

    /// The scalar at any location, as a secret.
    pub fn take(&self, location: &str) -> Result<SharedSecret, Failure> {
        let location = Location::parse(location).map_err(refusal)?;
        let found = self.find(&location)?.filter(|text| !text.is_empty());
        let missing = || Failure::sent(FailureKind::NotFound, "the answer has no such value");
        Ok(Arc::new(found.cloned().ok_or_else(missing)?))
    }

    fn find(&self, location: &Location) -> Result<Option<&Zeroizing<String>>, Failure> {
        match self.document.find(location) {
            Some(Found::One(text)) => Ok(Some(text)),
            Some(Found::Nothing) => Ok(None),
            Some(Found::Several) => Err(refusal("the location names more than one value")),
            None => {
                let message = "the answer is neither JSON nor XML by its content type, or is \
                               ambiguous: nothing in it can be read";
                Err(Failure::sent(FailureKind::Other, message))
            }
        }
    }
}

fn refusal(problem: &'static str) -> Failure {
    Failure::sent(FailureKind::InvalidInput, problem)
}
