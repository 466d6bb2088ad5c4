//! Makes and reads the contract's one error.

use crate::{Error, ErrorKind};

impl Error {
    /// A failure of this kind, before anything was sent upstream.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            message: message.into(),
            request_sent: false,
            retry_after_ms: None,
        }
    }

    /// The same failure, after the upstream may have acted: a blind retry is not safe.
    #[must_use]
    pub fn after_sending(mut self) -> Self {
        self.request_sent = true;
        self
    }

    /// The same failure as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same failure with what the operator can do about it.
    #[must_use]
    pub fn with_advice(mut self, advice: &str) -> Self {
        self.message.push_str(": ");
        self.message.push_str(advice);
        self
    }

    /// Whether the upstream gave this code, such as the SQLSTATE `42710`.
    pub fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_keeps_what_the_upstream_said() {
        let error = Error::new(ErrorKind::Denied, "permission denied").with_advice("grant it");
        assert_eq!(error.message, "permission denied: grant it");
        assert!(!error.request_sent);
    }

    #[test]
    fn a_code_matches_only_exactly() {
        let mut error = Error::new(ErrorKind::Other, "duplicate").after_sending();
        assert!(!error.has_code("42710"));
        error.code = Some("42710".to_owned());
        assert!(error.has_code("42710") && !error.has_code("4271"));
        assert!(error.request_sent);
    }
}
