//! XML into a tree: elements by their local names. Attributes, and text beside elements, are left
//! out: no location names them, so no plugin may see them.

use roxmltree::{Document, ParsingOptions};
use zeroize::Zeroizing;

use super::{DEPTH_MAX, Node, Scalar};

/// The tree, or `None` for what is no XML, has a document type or is too deep.
pub fn parse(text: &str) -> Option<Node> {
    let options =
        ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let root = document.root_element();
    let name = root.tag_name().name().to_owned();
    Some(Node::Map(vec![(name, element(root, 0)?)]))
}

fn element(element: roxmltree::Node<'_, '_>, depth: usize) -> Option<Node> {
    if depth >= DEPTH_MAX {
        return None;
    }
    let mut parts = Vec::new();
    for child in element.children().filter(roxmltree::Node::is_element) {
        parts.push((child.tag_name().name().to_owned(), self::element(child, depth + 1)?));
    }
    if !parts.is_empty() {
        return Some(Node::Map(parts));
    }
    let text = element.children().filter(roxmltree::Node::is_text).filter_map(|text| text.text());
    Some(Node::Scalar(Scalar::Text(Zeroizing::new(text.collect()))))
}

/// An answer of 256 KiB with an element every eight bytes.
const NODES_MAX: u32 = 32 * 1024;
