//! From the bytes of a prompt file and its sidecar to a role. Reads no file.

use sha2::{Digest, Sha256};

use super::authorizations::{self, Authorizations};
use super::error::{Located, Position, PromptError, PromptFault};
use super::yaml::{self, Map, Member, Node, Value};
use super::{PromptDigest, Role, front_matter};
use crate::name::RoleName;

/// A prompt file as it was read, once: what is parsed is what is hashed.
#[derive(Clone, Copy, Debug)]
pub struct PromptFile<'a> {
    /// Its path: for people, and for the name of a role that states none.
    pub path: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The file `<prompt>.authz.yaml` beside it.
    pub sidecar: Option<Sidecar<'a>>,
}

/// A sidecar as it was read: authorizations for a prompt file whose other readers refuse unknown keys.
#[derive(Clone, Copy, Debug)]
pub struct Sidecar<'a> {
    /// Its path, for people.
    pub path: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Reads one role. Markdown files (`.md`, `.markdown`) may have front matter; of all others
/// (Codex's `.toml`) the name is the file stem and only the sidecar declares authorizations.
pub fn parse(file: &PromptFile<'_>) -> Result<Role, PromptError> {
    let text = decode(file.bytes, PROMPT_BYTES_MAX).map_err(|fault| fault.within(file.path))?;
    let front = if is_markdown(file.path) { front(text) } else { Ok(Map::new()) };
    let front = front.map_err(|fault| fault.within(file.path))?;
    let name = match front.get("name") {
        Some(member) => stated_name(member),
        None => name_of_path(file.path),
    };
    Ok(Role {
        name: name.map_err(|fault| fault.within(file.path))?,
        description: front.get("description").and_then(text_of).map(str::to_owned),
        digest: digest(file),
        authorizations: declared(file, &front)?,
        path: file.path.to_owned(),
    })
}

fn decode(bytes: &[u8], bytes_max: usize) -> Result<&str, Located> {
    if bytes.len() > bytes_max {
        let fault = PromptFault::TooLarge { bytes: bytes.len(), most: bytes_max };
        return Err(fault.at(Position::START));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        let last_line = before.rsplit('\n').next().unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        PromptFault::NotUtf8.at(Position { line, column: last_line.chars().count() + 1 })
    })
}

fn front(text: &str) -> Result<Map, Located> {
    let Some(block) = front_matter::find(text)? else {
        return Ok(Map::new());
    };
    match yaml::read(block, front_matter::LINES_BEFORE)? {
        None => Ok(Map::new()),
        Some(Node { value: Value::Map(members), .. }) => Ok(members),
        Some(node) => {
            Err(shape("the front matter", "a mapping, such as `name: support-triage`").at(node.at))
        }
    }
}

/// Where authorizations are declared, and which.
struct Declaration {
    path: String,
    at: Position,
    authorizations: Authorizations,
}

/// Reads the three places in order; more than one is an error, so that no reviewer has to know
/// which one wins.
fn declared(file: &PromptFile<'_>, front: &Map) -> Result<Authorizations, PromptError> {
    let of_prompt = |found: Result<Option<Found>, Located>| {
        found
            .map(|found| found.map(|found| found.within(file.path)))
            .map_err(|fault| fault.within(file.path))
    };
    let places = [
        file.sidecar.as_ref().map(in_sidecar).transpose()?,
        of_prompt(in_front_matter(front))?,
        of_prompt(in_metadata(front))?,
    ];
    let mut declared = places.into_iter().flatten();
    let first = declared.next();
    if let (Some(first), Some(second)) = (&first, declared.next()) {
        let fault = PromptFault::DeclaredTwice { first: format!("{}:{}", first.path, first.at) };
        return Err(fault.at(second.at).within(&second.path));
    }
    Ok(first.map(|first| first.authorizations).unwrap_or_default())
}

/// A declaration whose file the caller knows.
struct Found {
    at: Position,
    authorizations: Authorizations,
}

impl Found {
    fn within(self, path: &str) -> Declaration {
        Declaration { path: path.to_owned(), at: self.at, authorizations: self.authorizations }
    }
}

fn in_sidecar(sidecar: &Sidecar<'_>) -> Result<Declaration, PromptError> {
    let found = decode(sidecar.bytes, SIDECAR_BYTES_MAX).and_then(of_sidecar);
    match found {
        Ok(found) => Ok(found.within(sidecar.path)),
        Err(fault) => Err(fault.within(sidecar.path)),
    }
}

fn of_sidecar(text: &str) -> Result<Found, Located> {
    let wanted = "a mapping with the one key `authorizations`";
    let root = yaml::read(front_matter::without_bom(text), 0)?;
    let at = root.as_ref().map_or(Position::START, |node| node.at);
    let Some(Node { value: Value::Map(members), .. }) = root else {
        return Err(shape("the sidecar", wanted).at(at));
    };
    authorizations::only_known(
        &members,
        &["authorizations"],
        "a sidecar has only the key `authorizations`",
    )?;
    in_front_matter(&members)?.ok_or_else(|| shape("the sidecar", wanted).at(at))
}

fn in_front_matter(front: &Map) -> Result<Option<Found>, Located> {
    let Some(Member { key_at, value }) = front.get("authorizations") else {
        return Ok(None);
    };
    Ok(Some(Found { at: *key_at, authorizations: authorizations::read(value)? }))
}

/// Validators of `SKILL.md` and others allow no key of ours, and under `metadata` only text: the
/// list then stands inside a string. A fault in it is reported where the string begins, since
/// escapes and folding leave no exact columns.
fn in_metadata(front: &Map) -> Result<Option<Found>, Located> {
    let Some(Member { value: Node { value: Value::Map(metadata), .. }, .. }) =
        front.get("metadata")
    else {
        return Ok(None);
    };
    let Some(Member { key_at, value }) = metadata.get(METADATA_KEY) else {
        return Ok(None);
    };
    let Value::Text { text, .. } = &value.value else {
        let what = "`claviger/authorizations` under `metadata`";
        return Err(shape(what, "a list inside a string, such as `\"[orders.read]\"`").at(value.at));
    };
    let empty = Node { at: value.at, value: Value::Text { text: String::new(), plain: true } };
    let authorizations = yaml::read(text, 0)
        .and_then(|list| authorizations::read(&list.unwrap_or(empty)))
        .map_err(|fault| fault.fault.at(value.at))?;
    Ok(Some(Found { at: *key_at, authorizations }))
}

fn stated_name(member: &Member) -> Result<RoleName, Located> {
    let at = member.value.at;
    let text = text_of(member).ok_or_else(|| shape("`name`", "text").at(at))?;
    text.parse().map_err(|error| PromptFault::Name(error).at(at))
}

fn text_of(member: &Member) -> Option<&str> {
    match &member.value.value {
        Value::Text { text, .. } => Some(text),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// A skill is named by its folder, every other file by its own name.
fn name_of_path(path: &str) -> Result<RoleName, Located> {
    let mut parts = path.rsplit('/');
    let file = parts.next().unwrap_or_default();
    let stem = if file == "SKILL.md" { parts.next() } else { Some(stem(file)) };
    let stem = stem.filter(|stem| !stem.is_empty() && *stem != "." && *stem != "..");
    let stem = stem.ok_or_else(|| PromptFault::Nameless.at(Position::START))?;
    stem.parse().map_err(|error| PromptFault::Name(error).at(Position::START))
}

fn stem(file: &str) -> &str {
    for suffix in [".agent.md", ".prompt.md"] {
        if let Some(stem) = file.strip_suffix(suffix) {
            return stem;
        }
    }
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn is_markdown(path: &str) -> bool {
    let extension = path.rsplit('/').next().and_then(|file| file.rsplit_once('.'));
    extension.is_some_and(|(_, extension)| {
        extension.eq_ignore_ascii_case("md") || extension.eq_ignore_ascii_case("markdown")
    })
}

/// See [`PromptDigest`]. A prompt of 64 bytes that are two digests would have the digest of the
/// pair, but such a file has no front matter and so declares nothing.
fn digest(file: &PromptFile<'_>) -> PromptDigest {
    let prompt = Sha256::digest(file.bytes);
    let both = file.sidecar.map(|sidecar| {
        Sha256::new().chain_update(prompt).chain_update(Sha256::digest(sidecar.bytes)).finalize()
    });
    PromptDigest::from_bytes(both.unwrap_or(prompt).into())
}

const fn shape(what: &'static str, wanted: &'static str) -> PromptFault {
    PromptFault::Shape { what, wanted }
}

/// The key under `metadata`; the slash keeps it apart from the keys of other tools.
const METADATA_KEY: &str = "claviger/authorizations";

/// The longest agent files in the wild have some 60 KiB. All roles are held in memory.
pub const PROMPT_BYTES_MAX: usize = 256 * 1024;

/// 256 authorizations with their limits need about 30 KiB.
pub const SIDECAR_BYTES_MAX: usize = 64 * 1024;
