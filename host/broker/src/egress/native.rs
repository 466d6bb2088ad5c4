//! The verifier of MySQL's `mysql_native_password`: what stands for a secret upstream.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::HEXUPPER;
use zeroize::Zeroizing;

use super::scram::is_generated;

/// The `mysql_native_password` verifier of `secret`: `*` and the digits of SHA1(SHA1(secret)).
///
/// `None` unless the secret has the form of those that the host generates. There is no salt and
/// no stretching, so the verifier of a secret with less than 128 bits could be searched.
pub fn verifier(secret: &str) -> Option<Zeroizing<String>> {
    is_generated(secret).then(|| verifier_of(secret))
}

fn verifier_of(secret: &str) -> Zeroizing<String> {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    Zeroizing::new(format!("*{}", HEXUPPER.encode(twice.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `SELECT PASSWORD('password')` says on every MySQL since 4.1, and on MariaDB.
    #[test]
    fn is_what_the_server_computes() {
        let known = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19";
        assert_eq!(verifier_of("password").as_str(), known);
    }

    #[test]
    fn refuses_what_could_be_searched() {
        assert!(verifier("password").is_none());
        assert!(verifier("a secret of several words").is_none());
        assert!(verifier("0123456789abcdefghijkl").is_some());
    }
}
