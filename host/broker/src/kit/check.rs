//! `clavigerd plugin check`: whether a broker would load a component, and what a reviewer would
//! object to. Runs no guest code and reaches no backend.

mod manifest;

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use wasmparser::{Parser, Payload};

use super::{ComponentArgs, Format, answer, read};
use crate::plugin::{
    ABI, ConnectionKind, Grant, Grants, LimitsClass, Manifest, check_import, component_bytes_max,
    links,
};

/// Something that is wrong with a component.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub about: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Checks the component and tells what it found.
pub fn run(args: &ComponentArgs) -> anyhow::Result<ExitCode> {
    let findings = findings(&read(&args.component)?);
    match args.output {
        Format::Json => answer(&serde_json::to_string_pretty(&findings)?)?,
        Format::Table => answer(&table(&args.component.display().to_string(), &findings))?,
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that is wrong with the component of these bytes.
pub fn findings(bytes: &[u8]) -> Vec<Finding> {
    let manifest = match Manifest::of_component(bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            let remedy = "build the component with `export!` of the SDK, or embed a manifest with \
                          `clavigerd plugin embed-manifest`";
            return vec![Finding::new("manifest", format!("it {error}"), remedy)];
        }
    };
    let mut findings = manifest::findings(&manifest);
    findings.extend(size(bytes.len(), manifest.limits_class));
    let outline = match Outline::of(bytes) {
        Ok(outline) => outline,
        Err(problem) => {
            findings.push(Finding::new("component", problem, "build it again"));
            return findings;
        }
    };
    let grants = grants(&manifest);
    findings.extend(imports(&outline, &manifest, grants));
    findings.extend(exports(&outline));
    // What the lists cannot show: the types. Only said if nothing else explains it.
    if findings.is_empty()
        && let Err(problem) = links(bytes, manifest.limits_class, grants)
    {
        let remedy = "build it against the `wit/` of the broker that will run it";
        findings.push(Finding::new("contract", format!("it {problem}"), remedy));
    }
    findings
}

impl Finding {
    fn new(about: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { about, problem: problem.into(), remedy: remedy.into() }
    }
}

/// What every connection that the manifest asks for would open.
pub fn grants(manifest: &Manifest) -> Grants {
    let grant = |kind| if manifest.wants(kind) { Grant::Given } else { Grant::Unrequested };
    Grants {
        sql: grant(ConnectionKind::Sql),
        http: grant(ConnectionKind::Http),
        jwt: grant(ConnectionKind::Jwt),
    }
}

/// The outermost imports and exports of a component.
#[derive(Debug, Default)]
pub struct Outline {
    /// What it needs.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
}

impl Outline {
    /// Reads them from a component's bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        let mut outline = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| format!("it is no WebAssembly: {error}"))? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import.map_err(|error| error.to_string())?;
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export.map_err(|error| error.to_string())?;
                        outline.exports.push(export.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }
}

fn size(bytes: usize, class: LimitsClass) -> Option<Finding> {
    let most = component_bytes_max(class);
    let remedy = match class {
        _ if bytes <= most => return None,
        LimitsClass::Standard => {
            "build it with `--profile plugin`; if an interpreter is in it, declare \
             `\"limits-class\": \"interpreted\"`"
        }
        LimitsClass::Interpreted => "leave out what the plugin does not need",
    };
    Some(Finding::new("size", format!("it has {bytes} bytes: at most {most} are loaded"), remedy))
}

fn imports(outline: &Outline, manifest: &Manifest, grants: Grants) -> Vec<Finding> {
    let mut findings = Vec::new();
    for import in &outline.imports {
        if let Err(error) = check_import(import, grants) {
            let remedy = "reach the outside through `claviger:sql`, `claviger:egress` or \
                          `claviger:jwt`, under a connection of the manifest";
            findings.push(Finding::new("imports", format!("it {error}"), remedy));
        }
    }
    let doors = [
        (ConnectionKind::Sql, "claviger:sql/", "sql"),
        (ConnectionKind::Http, "claviger:egress/", "http"),
        (ConnectionKind::Jwt, "claviger:jwt/", "jwt"),
    ];
    for (kind, door, name) in doors {
        let used = outline.imports.iter().any(|import| import.starts_with(door));
        if manifest.wants(kind) && !used {
            let problem = format!("it asks for a connection of kind `{name}` and never uses one");
            let remedy = "take the connection out: operators grant what they read";
            findings.push(Finding::new("imports", problem, remedy));
        }
    }
    findings
}

fn exports(outline: &Outline) -> Vec<Finding> {
    let (package, version) = ABI.split_once('@').unwrap_or((ABI, ""));
    let wanted = format!("{package}/provider@{version}");
    if outline.exports.contains(&wanted) {
        return Vec::new();
    }
    let found = outline.exports.iter().map(|export| format!("`{export}`")).collect::<Vec<_>>();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    let problem = format!("it exports {found} and not `{wanted}`");
    vec![Finding::new("exports", problem, "export the interface of `wit/provider` in this version")]
}

fn table(component: &str, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{component}: nothing to object to");
    }
    let mut text = String::new();
    for Finding { about, problem, remedy } in findings {
        let _always = writeln!(text, "{component}: {about}: {problem}\n    to mend it: {remedy}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_weight() {
        let standard = component_bytes_max(LimitsClass::Standard);
        let interpreted = component_bytes_max(LimitsClass::Interpreted);
        assert_eq!(size(standard, LimitsClass::Standard), None);
        let heavy = size(standard + 1, LimitsClass::Standard);
        assert!(heavy.is_some_and(|finding| finding.remedy.contains("interpreted")));
        assert_eq!(size(standard + 1, LimitsClass::Interpreted), None);
        assert!(size(interpreted + 1, LimitsClass::Interpreted).is_some());
    }

    #[test]
    fn only_the_contracts_export_will_do() {
        let outline =
            |export: &str| Outline { exports: vec![export.to_owned()], ..Outline::default() };
        assert!(exports(&outline("claviger:provider/provider@0.1.0")).is_empty());
        assert_eq!(exports(&outline("claviger:provider/provider@0.2.0")).len(), 1);
        assert_eq!(exports(&Outline::default()).len(), 1);
    }

    #[test]
    fn what_is_no_component_has_one_finding() {
        assert_eq!(findings(b"hello").len(), 1);
        assert_eq!(findings(b"\0asm\x0d\0\x01\0").len(), 1);
    }
}
