//! Finds a secret in bytes that came out, in whatever common encoding. Shares nothing with the
//! code that takes secrets out: where that encodes the secret, this decodes the bytes.

use std::collections::HashSet;

/// How `secret`, or a long part of it, can be read out of `bytes`.
///
/// One encoding is undone: what the host promises. What a service does to a secret beyond that
/// (encodes it twice, turns it round, encrypts it, gives it letter by letter) is out of reach.
pub fn leak(bytes: &[u8], secret: &str) -> Option<String> {
    let mut layer = vec![("as it is".to_owned(), bytes.to_vec())];
    for _ in 0..=LAYERS {
        for (how, text) in &layer {
            if let Some(part) = part_in(text, secret) {
                return Some(format!("`{part}` {how}"));
            }
        }
        layer = layer.iter().flat_map(|(how, text)| decoded(how, text)).collect();
    }
    None
}

/// A long part of the secret that stands in `text`, whatever the case of its letters.
fn part_in(text: &[u8], secret: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let secret = secret.to_ascii_lowercase();
    let bytes = PART_BYTES.min(secret.len());
    let parts: HashSet<_> = secret.as_bytes().windows(bytes).collect();
    let part = text.windows(bytes).find(|window| parts.contains(window))?;
    Some(String::from_utf8_lossy(part).into_owned())
}

/// All readings of `text` one layer down.
fn decoded(how: &str, text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut readings = vec![
        (format!("{how}, percent-decoded"), escapes(text, b"%", 2)),
        (format!("{how}, JSON-unescaped"), escapes(text, b"\\u", 4)),
        (format!("{how}, XML-unescaped"), entities(text)),
    ];
    for shift in 0..2 {
        let of_hex = runs(text, |byte| byte.is_ascii_hexdigit(), |run| hex(skip(run, shift)));
        readings.push((format!("{how}, hex {shift}"), of_hex));
    }
    for shift in 0..4 {
        let of_base64 = runs(text, is_base64, |run| base64(skip(run, shift)));
        readings.push((format!("{how}, base64 {shift}"), of_base64));
    }
    readings.retain(|(_, reading)| reading != text && !reading.is_empty());
    readings
}

fn skip(run: &[u8], count: usize) -> &[u8] {
    run.get(count..).unwrap_or_default()
}

/// `mark` and so many hexadecimal digits become the byte that they name.
fn escapes(text: &[u8], mark: &[u8], digits: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.first() {
        let code = rest.strip_prefix(mark).and_then(|after| after.get(..digits));
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &rest[mark.len() + digits..];
            }
            None => {
                plain.push(*first);
                rest = &rest[1..];
            }
        }
    }
    plain
}

fn entities(text: &[u8]) -> Vec<u8> {
    let mut plain = String::from_utf8_lossy(text).into_owned();
    for (entity, character) in
        [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'")]
    {
        plain = plain.replace(entity, character);
    }
    plain.into_bytes()
}

/// What `read` makes of each long run of such bytes, with a gap between two.
fn runs(text: &[u8], is: fn(u8) -> bool, read: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let long = text.split(|byte| !is(*byte)).filter(|run| run.len() >= PART_BYTES);
    long.flat_map(|run| [read(run), b"\n".to_vec()].concat()).collect()
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn hex(digits: &[u8]) -> Vec<u8> {
    let pairs = digits.chunks_exact(2);
    pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Either alphabet, six bits a digit, whatever is left over at the end dropped.
fn base64(digits: &[u8]) -> Vec<u8> {
    let mut bits = 0_u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            _ => 63,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

/// No encoding inside another.
const LAYERS: usize = 1;
/// Less of a secret than this is no use, and stands in a text by chance.
const PART_BYTES: usize = 10;

#[test]
fn finds_a_secret_that_was_planted_and_no_other() {
    use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
    const SECRET: &str = "S3cr/t+with \"signs\" & 0123456789";
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut plants = vec![
        SECRET.to_owned(),
        SECRET.to_uppercase(),
        SECRET[3..20].to_owned(),
        percent(SECRET),
        SECRET.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
        HEXLOWER.encode(SECRET.as_bytes()),
        HEXUPPER.encode(SECRET.as_bytes()),
        serde_json::json!({ "a": serde_json::json!(SECRET).to_string() }).to_string(),
        SECRET.replace('&', "&amp;").replace('"', "&quot;"),
    ];
    for before in ["", "x", "xy"] {
        let text = format!("{before}{SECRET}tail");
        plants.push(BASE64.encode(text.as_bytes()));
        plants.push(BASE64URL_NOPAD.encode(text.as_bytes()));
    }
    for plant in plants {
        let text = format!("before {plant} after");
        assert!(leak(text.as_bytes(), SECRET).is_some(), "not found in {text}");
        assert_eq!(leak(text.as_bytes(), "another-secret-0123"), None, "{text}");
    }
    assert_eq!(leak(b"S3cr/t+w and [redacted] and c2VjcmV0", SECRET), None);
}
