//! YAML read strictly into a small tree with positions. Every scalar is text: no value here is a
//! number or a boolean, so `no` and `1.0` cannot mean two things. Knows nothing of prompt files.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::error::{Located, Position, PromptFault, Refused, shown};

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    Text { text: String, plain: bool },
    List(Vec<Node>),
    Map(Map),
}

/// A mapping by key.
pub(super) type Map = BTreeMap<String, Member>;

/// One value of a mapping, with the place of its key.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key_at: Position,
    pub(super) value: Node,
}

/// Reads the one document in `text`, which follows `lines_before` lines of its file. `None` if
/// there is nothing but comments.
pub(super) fn read(text: &str, lines_before: usize) -> Result<Option<Node>, Located> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    };
    let position =
        |marker: Marker| Position { line: marker.line() + lines_before, column: marker.col() + 1 };
    let mut tree = Tree::default();
    for result in Parser::new_from_str_with_options(text, options) {
        let (event, span) = result.map_err(|error| {
            PromptFault::Yaml(shown(&error.info())).at(position(*error.marker()))
        })?;
        if let Some(tag) = span.tag_start() {
            return Err(PromptFault::Refused(Refused::Tag).at(position(tag)));
        }
        let event = match event {
            // The parser writes `~` for a value that is not there; an error should not quote it.
            Event::Scalar(_, style, anchor, tag) if span.start == span.end => {
                Event::Scalar("".into(), style, anchor, tag)
            }
            event => event,
        };
        tree.take(event, position(span.start))?;
    }
    Ok(tree.root)
}

/// A tree that grows with each event.
#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    documents: usize,
}

/// A list or mapping whose end has not come yet.
enum Open {
    List { at: Position, items: Vec<Node> },
    Map { at: Position, members: Map, key: Option<(String, Position)> },
}

impl Tree {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Located> {
        match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                self.place(Node { at, value: Value::Text { text: text.into_owned(), plain } })
            }
            Event::SequenceStart(..) => {
                self.open.push(Open::List { at, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(..) => {
                self.open.push(Open::Map { at, members: Map::new(), key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.place(open.closed()),
                None => Ok(()),
            },
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 { Err(PromptFault::SecondDocument.at(at)) } else { Ok(()) }
            }
            Event::Anchor(..) => Err(PromptFault::Refused(Refused::Anchor).at(at)),
            Event::Alias(..) | Event::UnresolvedAlias(..) => {
                Err(PromptFault::Refused(Refused::Alias).at(at))
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            // The parser may learn new events; what is not understood here is not let through.
            _ => Err(PromptFault::Yaml("an unknown construct".to_owned()).at(at)),
        }
    }

    fn place(&mut self, node: Node) -> Result<(), Located> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { members, key, .. }) => match key.take() {
                None => *key = Some(key_of(node, members)?),
                Some((name, key_at)) => {
                    members.insert(name, Member { key_at, value: node });
                }
            },
        }
        Ok(())
    }
}

impl Open {
    fn closed(self) -> Node {
        match self {
            Self::List { at, items } => Node { at, value: Value::List(items) },
            Self::Map { at, members, .. } => Node { at, value: Value::Map(members) },
        }
    }
}

fn key_of(node: Node, members: &Map) -> Result<(String, Position), Located> {
    let Value::Text { text, plain } = node.value else {
        return Err(PromptFault::KeyNotText.at(node.at));
    };
    if plain && text == "<<" {
        return Err(PromptFault::Refused(Refused::MergeKey).at(node.at));
    }
    if let Some(member) = members.get(&text) {
        let fault = PromptFault::DuplicateKey { key: shown(&text), first: member.key_at };
        return Err(fault.at(node.at));
    }
    Ok((text, node.at))
}

/// Agent files nest four or five levels (hooks, MCP servers); the parser's own limit of 255 would
/// let a file cost a deep recursion when its tree is dropped.
const NESTING_MAX: usize = 64;
