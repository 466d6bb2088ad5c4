//! Places in a response: a location names one, a pattern grants several. Pure text.

/// A place in a document, such as `/token/expires_in`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(Vec<String>);

/// Places that may be read: a location in which `*` stands for any one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Any,
    Named(String),
}

impl Location {
    /// Reads a JSON pointer (RFC 6901); the path of an XML element has the same form.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LOCATION_BYTES_MAX {
            return Err("a location takes at most 1 KiB");
        }
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let rest = text.strip_prefix('/').ok_or("a location begins with a slash")?;
        rest.split('/').map(unescape).collect::<Result<_, _>>().map(Self)
    }

    /// Its steps, from the root of the document.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

impl Pattern {
    /// Reads a location in which a whole step may be `*`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let step = |step: String| if step == "*" { Step::Any } else { Step::Named(step) };
        Location::parse(text).map(|location| Self(location.0.into_iter().map(step).collect()))
    }

    /// Whether it grants the place with these steps.
    pub fn grants(&self, steps: &[String]) -> bool {
        let fits = |(step, name): (&Step, &String)| match step {
            Step::Any => true,
            Step::Named(named) => named == name,
        };
        self.0.len() == steps.len() && self.0.iter().zip(steps).all(fits)
    }

    /// Whether it grants everything that `other` grants.
    pub fn covers(&self, other: &Self) -> bool {
        let wider = |(step, other): (&Step, &Step)| *step == Step::Any || step == other;
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(wider)
    }
}

fn unescape(step: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(character) = rest.next() {
        match (character, if character == '~' { rest.next() } else { None }) {
            ('~', Some('0')) => plain.push('~'),
            ('~', Some('1')) => plain.push('/'),
            ('~', _) => return Err("in a location `~` is written `~0`, and `/` in a name `~1`"),
            (other, _) => plain.push(other),
        }
    }
    Ok(plain)
}

/// Deeper than any document that services send.
const LOCATION_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_location_has_steps() {
        for (text, steps) in [
            ("", vec![]),
            ("/", vec![""]),
            ("/a/0/b", vec!["a", "0", "b"]),
            ("/a~1b/m~0n/~01", vec!["a/b", "m~n", "~1"]),
        ] {
            assert_eq!(Location::parse(text).unwrap().steps(), steps, "{text}");
        }
        for text in ["a", "/~", "/~2", &format!("/{}", "a".repeat(1_024))] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_grants_one_step_a_star() {
        for (pattern, location, expect) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", false),
            ("/a", "/a/b", false),
            ("/*/b", "/a/b", true),
            ("/*", "/a/b", false),
            ("/items/*/id", "/items/17/id", true),
            ("/items/*/id", "/items/17/token", false),
            ("/a*", "/ab", false),
            ("", "", true),
            ("", "/a", false),
        ] {
            let location = Location::parse(location).unwrap();
            assert_eq!(
                Pattern::parse(pattern).unwrap().grants(location.steps()),
                expect,
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (wide, narrow, expect) in [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/*", true),
            ("/a/b", "/a/*", false),
            ("/a", "/a/b", false),
            ("/*/*", "/a/*", true),
        ] {
            let (wide, narrow) = (Pattern::parse(wide).unwrap(), Pattern::parse(narrow).unwrap());
            assert_eq!(wide.covers(&narrow), expect, "{wide:?} {narrow:?}");
        }
    }
}
