//! `clavigerd plugin inspect`: what a component is and asks for, on one screen, and the stanza that
//! would grant it. Shows what the plugin says of itself; `check` and `test` tell whether it is so.

mod stanza;

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ComponentArgs, Format, answer, read};
use crate::plugin::{Auth, ConnectionKind, ConnectionRequest, Enforcer, LimitsClass, Manifest};

/// Shows the component.
pub fn run(args: &ComponentArgs) -> anyhow::Result<ExitCode> {
    let bytes = read(&args.component)?;
    let manifest = Manifest::of_component(&bytes)
        .with_context(|| format!("`{}`", args.component.display()))?;
    let shown = Shown {
        path: args.component.display().to_string(),
        bytes: bytes.len(),
        sha256: HEXLOWER.encode(&Sha256::digest(&bytes)),
        manifest,
    };
    match args.output {
        Format::Json => answer(&serde_json::to_string_pretty(&shown.json())?)?,
        Format::Table => answer(&shown.screen())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A component and what it says of itself.
struct Shown {
    path: String,
    bytes: usize,
    sha256: String,
    manifest: Manifest,
}

impl Shown {
    fn screen(&self) -> String {
        let manifest = &self.manifest;
        let mut text = format!("{} {}: {}\n", manifest.id, manifest.version, manifest.title);
        let mut line = |name: &str, value: &str| {
            let _always = writeln!(text, "  {name:<12}{value}");
        };
        line("mints", &mints(manifest));
        line("revocation", &revocation(manifest));
        line("life", &life(manifest));
        line("expiry", expiry(manifest.ttl.enforced_by));
        for (name, request) in &manifest.connections {
            line("connection", &format!("{name}: {}", asks_for(request)));
            line("", &format!("because it {}", request.why));
        }
        for (name, place) in &manifest.join_keys {
            line("join key", &format!("{name}: {place}"));
        }
        line("limits", class(manifest.limits_class));
        line("contract", &manifest.abi);
        line("bytes", &self.bytes.to_string());
        line("sha256", &self.sha256);
        let _always = write!(text, "\n{}", stanza::of(manifest, &self.path, &self.sha256));
        text
    }

    fn json(&self) -> Value {
        let manifest = &self.manifest;
        let fields =
            manifest.credential.fields.iter().map(
                |(name, field)| json!({"name": name, "secret": field.secret, "env": field.env}),
            );
        let connections = manifest.connections.iter().map(|(name, request)| {
            json!({
                "name": name.as_str(), "kind": kind(request.kind), "why": request.why,
                "auth": request.auth.iter().map(|auth| scheme(*auth)).collect::<Vec<_>>(),
                "methods": request.methods, "paths": request.paths, "reads": request.reads,
                "optional": request.optional,
            })
        });
        json!({
            "id": manifest.id, "version": manifest.version, "title": manifest.title,
            "abi": manifest.abi, "sha256": self.sha256, "bytes": self.bytes,
            "credential": {"kind": manifest.credential.kind, "fields": fields.collect::<Vec<_>>()},
            "revocation": {
                "class": manifest.revocation.class.as_str(),
                "residual_exposure_secs": manifest.revocation.residual_exposure_secs,
            },
            "ttl_min_secs": manifest.ttl.min_secs,
            "ttl_enforced_by": manifest.ttl.enforced_by.as_str(),
            "orphan_ttl_secs_max": manifest.orphan_ttl_secs_max,
            "connections": connections.collect::<Vec<_>>(),
            "join_keys": manifest.join_keys,
            "limits_class": class(manifest.limits_class),
            "settings_schema": manifest.settings_schema,
            "parameters_schema": manifest.parameters_schema,
            "stanza": stanza::of(manifest, &self.path, &self.sha256),
        })
    }
}

fn mints(manifest: &Manifest) -> String {
    let fields = manifest.credential.fields.iter().map(|(name, field)| {
        let env = field.env.as_deref().map(|env| format!(" ({env})")).unwrap_or_default();
        let mark = if field.secret { "*" } else { "" };
        format!("{name}{mark}{env}")
    });
    let fields: Vec<_> = fields.collect();
    format!("{}: {}; * is secret", manifest.credential.kind, fields.join(", "))
}

fn revocation(manifest: &Manifest) -> String {
    let residual = manifest.revocation.residual_exposure_secs;
    let after = match residual {
        0 => "dead at once".to_owned(),
        secs => format!("may go on working for {secs} s"),
    };
    format!("{}: {after}", manifest.revocation.class.as_str())
}

fn life(manifest: &Manifest) -> String {
    let orphan = match manifest.orphan_ttl_secs_max {
        None => "a crash leaves nothing unknown".to_owned(),
        Some(most) => format!("at most {most} s, since a crash can leave one that nobody knows"),
    };
    format!("at least {} s; {orphan}", manifest.ttl.min_secs)
}

const fn expiry(enforcer: Enforcer) -> &'static str {
    match enforcer {
        Enforcer::Upstream => "the upstream ends it, even if the broker is down",
        Enforcer::Broker => "only the broker ends it: while the broker is down, it lives on",
    }
}

fn asks_for(request: &ConnectionRequest) -> String {
    let auth: Vec<_> = request.auth.iter().map(|auth| scheme(*auth)).collect();
    let mut parts = vec![kind(request.kind).to_owned()];
    if !auth.is_empty() {
        parts.push(format!("auth {}", auth.join(" or ")));
    }
    for (name, values) in
        [("methods", &request.methods), ("paths", &request.paths), ("reads", &request.reads)]
    {
        if !values.is_empty() {
            parts.push(format!("{name} {}", values.join(" ")));
        }
    }
    if request.optional {
        parts.push("optional".to_owned());
    }
    parts.join("; ")
}

/// As manifests and configurations spell it.
const fn kind(kind: ConnectionKind) -> &'static str {
    match kind {
        ConnectionKind::Sql => "sql",
        ConnectionKind::Http => "http",
        ConnectionKind::Jwt => "jwt",
    }
}

/// As manifests and configurations spell it.
const fn scheme(auth: Auth) -> &'static str {
    match auth {
        Auth::None => "none",
        Auth::Password => "password",
        Auth::Bearer => "bearer",
        Auth::Basic => "basic",
        Auth::Header => "header",
        Auth::Sigv4 => "sigv4",
        Auth::OAuth2ClientCredentials => "oauth2-client-credentials",
        Auth::TokenExchange => "token-exchange",
        Auth::GoogleServiceAccount => "google-service-account",
        Auth::WebIdentity => "web-identity",
        Auth::Mtls => "mtls",
    }
}

/// As manifests spell it.
const fn class(class: LimitsClass) -> &'static str {
    match class {
        LimitsClass::Standard => "standard",
        LimitsClass::Interpreted => "interpreted",
    }
}
