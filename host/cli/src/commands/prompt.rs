//! `claviger prompt`: checks prompt files as the broker will read them. Asks no broker.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use claviger_core::prompt::{PROMPT_BYTES_MAX, PromptFile, Role, Sidecar, parse};
use serde::Serialize;

use super::Context;
use crate::exit::{Exit, Failure};
use crate::text::{Table, span, visible};

/// The commands on prompt files.
#[derive(Subcommand)]
pub enum PromptCommand {
    /// What prompt files declare, or what is wrong with them
    #[command(after_help = LINT_EXAMPLE)]
    Lint(Files),
    /// The digest by which the broker and the journal know a prompt file
    #[command(
        after_help = "Example:\n  claviger audit query --output json | grep \"$(claviger prompt digest roles/triage.md)\""
    )]
    Digest(OneFile),
}

/// Some prompt files.
#[derive(Args)]
pub struct Files {
    /// Prompt files; the sidecar `FILE.authz.yaml` is read with each
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// One prompt file.
#[derive(Args)]
pub struct OneFile {
    /// The prompt file; its sidecar `FILE.authz.yaml` is read with it
    file: PathBuf,
}

/// Runs one of them.
pub fn run(context: &Context, command: &PromptCommand) -> Result<Exit, Failure> {
    match command {
        PromptCommand::Lint(args) => lint(context, &args.files),
        PromptCommand::Digest(args) => digest(context, &args.file),
    }
}

/// One file's outcome as JSON.
#[derive(Serialize)]
struct LintView {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<RoleView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemView>,
}

/// What a prompt file declares.
#[derive(Serialize)]
struct RoleView {
    name: String,
    digest: String,
    authorizations: Vec<AuthorizationView>,
}

/// One authorization.
#[derive(Serialize)]
struct AuthorizationView {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_max_secs: Option<u64>,
}

/// What is wrong, and where.
#[derive(Serialize)]
struct ProblemView {
    path: String,
    line: usize,
    column: usize,
    message: String,
}

fn lint(context: &Context, files: &[PathBuf]) -> Result<Exit, Failure> {
    let is_json = context.printer.is_json()?;
    let mut exit = Exit::OK;
    let mut table = Table::new(&["FILE", "ROLE", "AUTHORIZATION", "MAX TTL"]);
    for path in files {
        let view = Prompt::read(path)?.lint();
        if let Some(problem) = &view.problem {
            exit = Exit::FAILURE;
            if !is_json {
                context.printer.text(&format!("{}\n", problem.line()))?;
            }
        }
        if is_json {
            context.printer.json(&view)?;
        } else if let Some(role) = &view.role {
            add_rows(&mut table, &view.path, role);
        }
    }
    if !is_json && !table.is_empty() {
        context.printer.table(&table)?;
    }
    Ok(exit)
}

fn digest(context: &Context, path: &Path) -> Result<Exit, Failure> {
    let is_json = context.printer.is_json()?;
    let view = Prompt::read(path)?.lint();
    match (view.role, view.problem) {
        (Some(role), _) if is_json => {
            let (path, digest) = (view.path, role.digest);
            context.printer.json(&serde_json::json!({ "path": path, "digest": digest }))?;
        }
        (Some(role), _) => context.printer.text(&format!("{}\n", role.digest))?,
        (None, problem) => {
            return Err(Failure::other(problem.map_or_else(String::new, |problem| problem.line())));
        }
    }
    Ok(Exit::OK)
}

/// A prompt file and its sidecar as they were read.
struct Prompt {
    path: String,
    bytes: Vec<u8>,
    sidecar: Option<(String, Vec<u8>)>,
}

impl Prompt {
    fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let bytes =
            read(&name)?.ok_or_else(|| Failure::other(format!("`{name}` does not exist")))?;
        let sidecar_name = format!("{name}{SIDECAR_SUFFIX}");
        let sidecar = read(&sidecar_name)?.map(|bytes| (sidecar_name, bytes));
        Ok(Self { path: name, bytes, sidecar })
    }

    fn lint(&self) -> LintView {
        let sidecar = self.sidecar.as_ref().map(|(path, bytes)| Sidecar { path, bytes });
        let path = self.path.clone();
        match parse(&PromptFile { path: &self.path, bytes: &self.bytes, sidecar }) {
            Ok(role) => LintView { path, role: Some(role.into()), problem: None },
            Err(error) => {
                let problem = ProblemView {
                    line: error.at.line,
                    column: error.at.column,
                    message: error.fault.to_string(),
                    path: error.path,
                };
                LintView { path, role: None, problem: Some(problem) }
            }
        }
    }
}

impl ProblemView {
    fn line(&self) -> String {
        let Self { path, line, column, message } = self;
        visible(&format!("{path}:{line}:{column}: {message}")).into_owned()
    }
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        let authorizations = role.authorizations.iter().map(|(name, limits)| AuthorizationView {
            name: name.to_string(),
            ttl_max_secs: limits.ttl_max.map(|ttl| ttl.as_secs()),
        });
        Self {
            name: role.name.to_string(),
            digest: role.digest.to_string(),
            authorizations: authorizations.collect(),
        }
    }
}

fn add_rows(table: &mut Table, path: &str, role: &RoleView) {
    if role.authorizations.is_empty() {
        table.row([path, &role.name, "(none)", ""]);
    }
    for authorization in &role.authorizations {
        let ttl_max = authorization.ttl_max_secs.map(std::time::Duration::from_secs).map(span);
        let ttl_max = ttl_max.as_deref().unwrap_or("-");
        table.row([path, &role.name, &authorization.name, ttl_max]);
    }
}

/// The file's bytes, one more than are allowed at most: enough for the parser to refuse it.
fn read(path: &str) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let most = u64::try_from(PROMPT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::unreadable(path, &error)),
    }
}

/// As the broker's reader of prompt directories spells it.
const SIDECAR_SUFFIX: &str = ".authz.yaml";

const LINT_EXAMPLE: &str = "\
Exit code 1 if any file is wrong; each problem is one line `path:line:column: sentence`.

Example: before a review
  claviger prompt lint .claude/agents/*.md";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn lint(prompt: &str, sidecar: Option<&str>) -> LintView {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("triage.md");
        std::fs::write(&path, prompt).unwrap();
        if let Some(sidecar) = sidecar {
            std::fs::write(directory.path().join("triage.md.authz.yaml"), sidecar).unwrap();
        }
        Prompt::read(&path).unwrap().lint()
    }

    #[test]
    fn declarations_come_from_the_prompt_or_its_sidecar() {
        let declares = "authorizations:\n  - orders.read: { max_ttl: 15m }\n";
        let front = format!("---\nname: triage\n{declares}---\nYou are\n");
        for view in [lint(&front, None), lint("---\nname: triage\n---\n", Some(declares))] {
            let role = view.role.unwrap();
            let authorization = role.authorizations.first().unwrap();
            assert_eq!(
                (role.name.as_str(), authorization.name.as_str()),
                ("triage", "orders.read")
            );
            assert_eq!(authorization.ttl_max_secs, Some(900));
        }
    }

    #[test]
    fn a_problem_names_its_file_line_and_column() {
        let view = lint("---\nname: triage\n---\n", Some("authorizations:\n  - A B\n"));
        let problem = view.problem.unwrap();
        assert!(problem.path.ends_with("triage.md.authz.yaml"), "{}", problem.path);
        assert!(problem.line().contains(".authz.yaml:2:"), "{}", problem.line());
    }

    #[test]
    fn a_missing_file_is_a_failure() {
        assert!(Prompt::read(Path::new("/nowhere/triage.md")).is_err());
    }
}
