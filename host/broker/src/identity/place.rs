//! Where a document is, as a route of the one door and a path. Reaches nobody.

use thiserror::Error;
use url::Url;

use crate::egress::http::{OriginError, Reach, Route};

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its origin.
    pub route: Route,
    /// The rest of it.
    pub path_and_query: String,
}

/// A URL that nothing is asked at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// Its origin is refused.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// It is written in another way than it is sent.
    #[error("a URL is wanted as it is sent: without credentials, fragment or characters to encode")]
    Form,
}

impl Place {
    /// Takes `text` apart. Plain HTTP goes to loopback addresses alone, and there only where
    /// `reach` grants them.
    pub fn parse(text: &str, reach: &[Reach]) -> Result<Self, PlaceError> {
        let url = Url::parse(text).map_err(|_| PlaceError::Form)?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        // The parser adds a slash to a bare origin.
        let origin = match text.strip_suffix(&path) {
            Some(origin) => origin,
            None if path == "/" => text,
            None => return Err(PlaceError::Form),
        };
        Ok(Self { route: Route::parse(origin, reach)?, path_and_query: path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_origin_and_a_path_and_nothing_else() {
        let parsed = |text| {
            let place = Place::parse(text, &[Reach::Loopback]).ok()?;
            Some((place.route.origin(), place.path_and_query))
        };
        for (text, origin, path) in [
            ("https://id.example", "https://id.example", "/"),
            ("https://id.example/", "https://id.example", "/"),
            ("https://id.example/a/b?c=d", "https://id.example", "/a/b?c=d"),
            ("http://127.0.0.1:8080/keys", "http://127.0.0.1:8080", "/keys"),
        ] {
            assert_eq!(parsed(text), Some((origin.to_owned(), path.to_owned())), "{text}");
        }
        for text in [
            "id.example",
            "http://id.example/keys",
            "https://user:secret@id.example/keys",
            "https://id.example/keys#a",
            "https://id.example/a/../keys",
            "https://id.example/ä",
            "https://ID.example/keys",
            "file:///etc/passwd",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert!(Place::parse("http://127.0.0.1:1/", &[]).is_err());
    }
}
