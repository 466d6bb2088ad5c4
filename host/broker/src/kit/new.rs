//! `clavigerd plugin new`: a plugin to begin with, in a folder of its own. What it writes builds and
//! passes its tests; the templates lie in `template/`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

use super::answer;

/// What to write, and where.
#[derive(Args)]
pub struct NewArgs {
    /// The plugin's name: lower-case letters, digits and dashes. Also the folder's
    name: String,
    /// What it reaches
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// The folder `plugins/sdk` of a checkout of Claviger [default: that of the checkout in which
    /// this program was built]
    #[arg(long)]
    sdk: Option<PathBuf>,
}

/// The door that a plugin begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A PostgreSQL database.
    Sql,
    /// An HTTP service that makes tokens.
    #[default]
    Http,
}

/// Writes the plugin into a new folder.
pub fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let name = &args.name;
    ensure!(
        is_name(name),
        "`{name}` is not a name for a plugin: write lower-case letters, digits and single dashes, \
         and begin with a letter"
    );
    let sdk = match &args.sdk {
        Some(sdk) => sdk.clone(),
        None => own_sdk().context(
            "this program does not lie in a checkout of Claviger: say where the SDK is with \
             `--sdk CHECKOUT/plugins/sdk`",
        )?,
    };
    let sdk = sdk
        .canonicalize()
        .ok()
        .filter(|sdk| sdk.join("Cargo.toml").is_file())
        .with_context(|| format!("`{}` is not the folder of the SDK", sdk.display()))?;
    let folder = Path::new(name);
    if folder.exists() {
        bail!("`{name}` exists: choose another name, or remove it");
    }
    write(folder, &Words::new(name, &sdk), args.kind)?;
    // The versions with which the SDK was tested; cargo drops what the plugin does not use.
    if let Some(lock) = sdk.ancestors().nth(2).map(|root| root.join("Cargo.lock"))
        && lock.is_file()
    {
        std::fs::copy(&lock, folder.join("Cargo.lock")).context("Cargo.lock cannot be copied")?;
    }
    answer(&format!(
        "wrote {name}/, which depends on the SDK at {}\n\n  cd {name}\n  cargo test\n  \
         cargo build --target wasm32-wasip2 --profile plugin\n  clavigerd plugin check \
         target/wasm32-wasip2/plugin/{}.wasm\n\nREADME.md says what comes next.",
        sdk.display(),
        name.replace('-', "_")
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What stands for the words of the templates.
struct Words {
    name: String,
    ident: String,
    type_name: String,
    sdk: String,
}

impl Words {
    fn new(name: &str, sdk: &Path) -> Self {
        let capitalised = |word: &str| {
            let mut letters = word.chars();
            letters
                .next()
                .into_iter()
                .flat_map(char::to_uppercase)
                .chain(letters)
                .collect::<String>()
        };
        Self {
            name: name.to_owned(),
            ident: name.replace('-', "_"),
            type_name: name.split('-').map(capitalised).collect(),
            sdk: sdk.display().to_string(),
        }
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("{{name}}", &self.name)
            .replace("{{ident}}", &self.ident)
            .replace("{{Type}}", &self.type_name)
            .replace("{{sdk}}", &self.sdk)
    }
}

fn is_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(|part| !part.is_empty() && part.chars().all(known))
}

/// The SDK of the checkout that this program lies in.
fn own_sdk() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors().map(|folder| folder.join("plugins/sdk"));
    folders.into_iter().find(|sdk| sdk.join("Cargo.toml").is_file())
}

fn write(folder: &Path, words: &Words, kind: Kind) -> anyhow::Result<()> {
    let own = match kind {
        Kind::Sql => SQL,
        Kind::Http => HTTP,
    };
    for (file, template) in COMMON.iter().chain(own) {
        let path = folder.join(file);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, words.fill(template)))
            .with_context(|| format!("`{}` cannot be written", path.display()))?;
    }
    Ok(())
}

/// The name stands in file names, in TOML keys and in the plugin's id.
const NAME_BYTES_MAX: usize = 40;

const COMMON: [(&str, &str); 2] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.template")),
    (".gitignore", "/target\n/secrets\n"),
];

const SQL: &[(&str, &str)] = &[
    ("src/lib.rs", include_str!("template/sql/lib.rs.template")),
    ("manifest.json", include_str!("template/sql/manifest.json.template")),
    ("README.md", include_str!("template/sql/README.md.template")),
    ("conformance.toml", include_str!("template/sql/conformance.toml.template")),
];

const HTTP: &[(&str, &str)] = &[
    ("src/lib.rs", include_str!("template/http/lib.rs.template")),
    ("manifest.json", include_str!("template/http/manifest.json.template")),
    ("README.md", include_str!("template/http/README.md.template")),
    ("conformance.toml", include_str!("template/http/conformance.toml.template")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_crates_files_and_keys() {
        for (name, expect) in [
            ("tokens", true),
            ("my-tokens2", true),
            ("", false),
            ("Tokens", false),
            ("2tokens", false),
            ("a--b", false),
            ("-a", false),
            ("../x", false),
        ] {
            assert_eq!(is_name(name), expect, "{name}");
        }
    }

    #[test]
    fn no_word_is_left_open() {
        let words = Words::new("my-tokens", Path::new("/sdk"));
        for (file, template) in COMMON.iter().chain(SQL).chain(HTTP) {
            assert!(!words.fill(template).contains("{{"), "{file}");
        }
        assert_eq!(words.fill("{{Type}} {{ident}}"), "MyTokens my_tokens");
    }
}
