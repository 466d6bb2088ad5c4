//! What can be wrong with a prompt file, and where. Finds nothing itself.

use std::fmt;

use thiserror::Error;

use super::authorizations::AUTHORIZATIONS_MAX;
use crate::decide::TTL_MAX;
use crate::name::{Authorization, NameError, RoleName};

/// A prompt file that makes no role. Displays as `path:line:column: sentence`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}:{at}: {fault}")]
pub struct PromptError {
    /// The file: the prompt itself or its sidecar.
    pub path: String,
    /// Where in the file.
    pub at: Position,
    /// What is wrong, as a sentence that says what to write instead.
    pub fault: PromptFault,
}

/// A place in a file, as editors count: from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl Position {
    /// Where a file begins; also where a fault of the file as a whole is reported.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a prompt file or its sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PromptFault {
    /// More bytes than are read.
    #[error("the file has {bytes} bytes: at most {most} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A byte that is not UTF-8.
    #[error("this byte is not UTF-8: save the file as UTF-8")]
    NotUtf8,
    /// The front matter is opened and never closed.
    #[error("the front matter that begins here never ends: close it with a line `---`")]
    Unclosed,
    /// YAML that cannot be read.
    #[error("not readable as YAML: {0}")]
    Yaml(String),
    /// YAML that two parsers could read differently, and so is refused.
    #[error("{0} is not allowed here: write the value out")]
    Refused(Refused),
    /// A second YAML document.
    #[error("a second YAML document begins here: keep one")]
    SecondDocument,
    /// A key that is a list or a mapping.
    #[error("a key has to be text")]
    KeyNotText,
    /// The same key twice in one mapping.
    #[error("key `{key}` stands here again, after {first}: keep one")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it stands first.
        first: Position,
    },
    /// A value of another shape.
    #[error("{what} has to be {wanted}")]
    Shape {
        /// The key or thing.
        what: &'static str,
        /// What to write.
        wanted: &'static str,
    },
    /// A key that means nothing here.
    #[error("`{key}` is not known here: {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Which keys there are.
        known: &'static str,
    },
    /// The role's name cannot be used.
    #[error("{0}")]
    Name(NameError),
    /// Neither front matter nor path give a name.
    #[error("neither front matter nor path name the role: write `name:` in the front matter")]
    Nameless,
    /// An authorization's name cannot be used.
    #[error("{0}")]
    Authorization(NameError),
    /// One list item names several authorizations.
    #[error(
        "an item names one authorization: begin another item with `- `, or indent a limit of the \
         one before, as in `- tickets.refund: {{ max_ttl: 15m }}`"
    )]
    SeveralInOneItem,
    /// The same authorization twice.
    #[error("`{authorization}` is declared again, after {first}: keep one")]
    DuplicateAuthorization {
        /// The authorization.
        authorization: Authorization,
        /// Where it is declared first.
        first: Position,
    },
    /// More authorizations than a role can have.
    #[error("more than {AUTHORIZATIONS_MAX} authorizations: split the role")]
    TooMany,
    /// A span of time that cannot be read or is out of range.
    #[error(
        "`{text}` is not a `max_ttl`: write from 1s to {}, such as `15m`",
        humantime::format_duration(TTL_MAX)
    )]
    Ttl {
        /// As written.
        text: String,
    },
    /// Authorizations in two places.
    #[error("authorizations are declared here and at {first} as well: keep one place")]
    DeclaredTwice {
        /// `path:line:column` of the other place.
        first: String,
    },
    /// Another file makes a role of that name.
    #[error("role `{role}` is claimed by `{other}` as well, so neither is loaded: rename one")]
    RoleClaimedTwice {
        /// The name.
        role: RoleName,
        /// The other file.
        other: String,
    },
}

/// YAML features that are refused everywhere, also where other tools own the key: what they make
/// of a file depends on the parser, and the broker must read what the reviewer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// `&name`.
    #[error("an anchor (`&`)")]
    Anchor,
    /// `*name`.
    #[error("an alias (`*`)")]
    Alias,
    /// `!tag`.
    #[error("a tag (`!`)")]
    Tag,
    /// `<<: …`.
    #[error("a merge key (`<<`)")]
    MergeKey,
}

/// A fault with its place, before the file's path is added.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) at: Position,
    pub(super) fault: PromptFault,
}

impl Located {
    pub(super) fn within(self, path: &str) -> PromptError {
        PromptError { path: path.to_owned(), at: self.at, fault: self.fault }
    }
}

impl PromptFault {
    pub(super) const fn at(self, at: Position) -> Located {
        Located { at, fault: self }
    }
}

/// Text of a file as an error shows it: clipped, and on one line.
pub(super) fn shown(text: &str) -> String {
    let one = |c: char| if c.is_control() { c.escape_debug().collect() } else { c.to_string() };
    text.chars().take(SHOWN_CHARS_MAX).map(one).collect()
}

/// As many characters as the longest name has; more would hide the sentence round it.
const SHOWN_CHARS_MAX: usize = 64;
