//! A response's body as a tree of scalars, from JSON or XML. Keeps every scalar to itself unless it
//! is asked for by its place.

mod json;
mod xml;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use zeroize::Zeroizing;

use super::location::Location;

/// A body.
pub enum Document {
    /// Nothing.
    Empty,
    /// Neither JSON nor XML.
    Opaque,
    /// Said to be JSON or XML, and is not, or is ambiguous.
    Unreadable,
    /// JSON.
    Json(Node),
    /// XML.
    Xml(Node),
}

/// A part of a document.
pub enum Node {
    /// A value.
    Scalar(Scalar),
    /// JSON's array.
    List(Vec<Node>),
    /// Named parts. In XML several may have one name.
    Map(Vec<(String, Node)>),
}

/// A value, as text.
pub enum Scalar {
    /// A string.
    Text(Zeroizing<String>),
    /// A number or a truth value, which JSON writes without quotation marks.
    Bare(Zeroizing<String>),
    /// JSON's `null`.
    Null,
}

/// What stands at a location.
pub enum Found<'d> {
    /// Nothing.
    Nothing,
    /// One value.
    One(&'d Zeroizing<String>),
    /// Several values, or one with parts.
    Several,
}

impl Document {
    /// Reads a body by what its content type says it is.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        if body.is_empty() {
            return Self::Empty;
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        let is = |name: &str| {
            media_type.ends_with(&format!("+{name}"))
                || media_type == format!("application/{name}")
                || media_type == format!("text/{name}")
        };
        let read = |parse: fn(&str) -> Option<Node>, document: fn(Node) -> Self| {
            std::str::from_utf8(body).ok().and_then(parse).map_or(Self::Unreadable, document)
        };
        match () {
            () if is("json") => read(json::parse, Self::Json),
            () if is("xml") => read(xml::parse, Self::Xml),
            () => Self::Opaque,
        }
    }

    /// What stands at `location`; `None` if the document has no places.
    pub fn find(&self, location: &Location) -> Option<Found<'_>> {
        match self {
            Self::Empty => Some(Found::Nothing),
            Self::Opaque | Self::Unreadable => None,
            Self::Json(root) | Self::Xml(root) => Some(root.find(location.steps())),
        }
    }

    /// The document with every scalar as `show` shows it: `None` hides it. Names pass through
    /// `clean`.
    pub fn render(
        &self,
        show: impl Fn(&[String], &str) -> Option<String>,
        clean: impl Fn(&str) -> String,
    ) -> String {
        let mut painter = Painter { show, clean, steps: Vec::new(), text: String::new() };
        match self {
            Self::Empty => {}
            Self::Opaque | Self::Unreadable => painter.text.push_str(HIDDEN),
            Self::Json(root) => painter.json(root),
            Self::Xml(root) => painter.xml(root),
        }
        painter.text
    }
}

impl Node {
    fn find(&self, steps: &[String]) -> Found<'_> {
        let Some((step, rest)) = steps.split_first() else {
            return match self {
                Self::Scalar(Scalar::Text(text) | Scalar::Bare(text)) => Found::One(text),
                Self::Scalar(Scalar::Null) => Found::Nothing,
                Self::List(_) | Self::Map(_) => Found::Several,
            };
        };
        match self {
            Self::Scalar(_) => Found::Nothing,
            Self::List(nodes) => {
                // Written as RFC 6901 wants it: `01` is no index.
                let index = step.parse().ok().filter(|index: &usize| index.to_string() == *step);
                let node = index.and_then(|index| nodes.get(index));
                node.map_or(Found::Nothing, |node| node.find(rest))
            }
            Self::Map(parts) => {
                let mut found = Found::Nothing;
                for (_, node) in parts.iter().filter(|(name, _)| name == step) {
                    found = match (found, node.find(rest)) {
                        (Found::Nothing, other) => other,
                        (one, Found::Nothing) => one,
                        _ => return Found::Several,
                    };
                }
                found
            }
        }
    }
}

struct Painter<S, C> {
    show: S,
    clean: C,
    steps: Vec<String>,
    text: String,
}

impl<S: Fn(&[String], &str) -> Option<String>, C: Fn(&str) -> String> Painter<S, C> {
    fn json(&mut self, node: &Node) {
        match node {
            Node::Scalar(scalar) => self.json_scalar(scalar),
            Node::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.text.push(if index == 0 { '[' } else { ',' });
                    self.steps.push(index.to_string());
                    self.json(node);
                    self.steps.pop();
                }
                self.text.push_str(if nodes.is_empty() { "[]" } else { "]" });
            }
            Node::Map(parts) => {
                for (index, (name, node)) in parts.iter().enumerate() {
                    self.text.push(if index == 0 { '{' } else { ',' });
                    let shown = (self.clean)(name);
                    self.text.push_str(&json_string(&shown));
                    self.text.push(':');
                    self.steps.push(name.clone());
                    self.json(node);
                    self.steps.pop();
                }
                self.text.push_str(if parts.is_empty() { "{}" } else { "}" });
            }
        }
    }

    fn json_scalar(&mut self, scalar: &Scalar) {
        let shown = match scalar {
            Scalar::Text(text) => (self.show)(&self.steps, text).map(|text| json_string(&text)),
            // A number that was redacted is no number any more.
            Scalar::Bare(text) => (self.show)(&self.steps, text)
                .map(|shown| if shown == **text { shown } else { json_string(&shown) }),
            Scalar::Null => (self.show)(&self.steps, "null").map(|_| "null".to_owned()),
        };
        self.text.push_str(&shown.unwrap_or_else(|| json_string(HIDDEN)));
    }

    fn xml(&mut self, node: &Node) {
        match node {
            Node::Scalar(Scalar::Text(text) | Scalar::Bare(text)) => {
                let shown = (self.show)(&self.steps, text);
                let shown = shown.unwrap_or_else(|| HIDDEN.to_owned());
                let encoded = super::encode::Encoding::Xml.write(&shown);
                self.text.push_str(&encoded);
            }
            Node::Scalar(Scalar::Null) | Node::List(_) => {}
            Node::Map(parts) => {
                for (name, node) in parts {
                    let shown = (self.clean)(name);
                    self.text.push_str(&format!("<{shown}>"));
                    self.steps.push(name.clone());
                    self.xml(node);
                    self.steps.pop();
                    self.text.push_str(&format!("</{shown}>"));
                }
            }
        }
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What stands in the place of a value that a guest may not read.
pub const HIDDEN: &str = "[hidden]";

/// Deeper than any service nests, and far from the end of the host's stack.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests;
