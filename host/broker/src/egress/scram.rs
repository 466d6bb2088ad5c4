//! Secrets made in the host: random values and the SCRAM verifiers that stand for them upstream.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, error::Unspecified, hmac, pbkdf2, rand};
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// A random secret of letters and digits with at least `bits` bits of entropy.
pub fn random_secret(bits: u32) -> Result<Zeroizing<String>, Unspecified> {
    let chars = (f64::from(bits) / BITS_PER_CHAR).ceil();
    let mut secret = Zeroizing::new(String::with_capacity(SECRET_CHARS_CAPACITY));
    let mut random = Zeroizing::new([0_u8; 64]);
    loop {
        rand::fill(random.as_mut())?;
        for byte in random.iter().filter(|byte| **byte < UNBIASED_BELOW) {
            let symbol = ALPHABET.get(usize::from(*byte) % ALPHABET.len()).ok_or(Unspecified)?;
            secret.push(char::from(*symbol));
            if f64::from(u32::try_from(secret.len()).unwrap_or(u32::MAX)) >= chars {
                return Ok(secret);
            }
        }
    }
}

/// Whether `secret` has the form of those that [`random_secret`] makes of 128 bits or more: nobody
/// can search it.
pub fn is_generated(secret: &str) -> bool {
    secret.len() >= GENERATED_CHARS_MIN && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The SCRAM-SHA-256 verifier of `secret` with a fresh salt, in the form of RFC 5803 as
/// PostgreSQL stores it. `secret` must be printable ASCII, for which SASLprep changes nothing.
///
/// Takes about 0.4 µs an iteration: more than some thousand belong on a thread that may block.
pub fn verifier(secret: &str, iterations: NonZeroU32) -> Result<Zeroizing<String>, Unspecified> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt)?;
    Ok(verifier_with_salt(secret, iterations, &salt))
}

fn verifier_with_salt(secret: &str, iterations: NonZeroU32, salt: &[u8]) -> Zeroizing<String> {
    let mut salted = Zeroizing::new([0_u8; digest::SHA256_OUTPUT_LEN]);
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, iterations, salt, secret.as_bytes(), salted.as_mut());
    let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_ref());
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    Zeroizing::new(format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored_key.as_ref()),
        BASE64.encode(server_key.as_ref()),
    ))
}

/// The letters and digits of 128 bits, the least that the host generates.
const GENERATED_CHARS_MIN: usize = 22;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Largest multiple of 62 in a byte: what lies above would favour the first symbols.
const UNBIASED_BELOW: u8 = 248;

/// log2(62), rounded down, so that the length is never too short.
const BITS_PER_CHAR: f64 = 5.954;

/// Room for 512 bits, so that the growing string never leaves a copy behind in freed memory.
const SECRET_CHARS_CAPACITY: usize = 128;

/// As PostgreSQL's own verifiers.
const SALT_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn secrets_have_the_entropy_asked_for_and_differ() {
        for (bits, chars) in [(128, 22), (256, 43), (512, 86)] {
            let secret = random_secret(bits).unwrap();
            assert_eq!(secret.len(), chars);
            assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert_ne!(secret, random_secret(bits).unwrap());
        }
    }

    /// The example of RFC 7677: user `user`, password `pencil`, 4096 iterations. The expected
    /// keys follow from its salt; its server signature is checked against the server key.
    #[test]
    fn verifies_the_exchange_of_rfc_7677() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = verifier_with_salt("pencil", NonZeroU32::new(4096).unwrap(), &salt);
        assert_eq!(
            verifier.as_str(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
             r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
             c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server_key = verifier.rsplit(':').next().unwrap();
        let key = BASE64.decode(server_key.as_bytes()).unwrap();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), message.as_bytes());
        let expected = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(BASE64.encode(signature.as_ref()), expected);
    }
}
