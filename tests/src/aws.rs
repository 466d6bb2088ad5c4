//! An AWS account that a world's broker hands out sessions of, and an agent's boto3 that uses them.

use std::process::{Command, Output};

use claviger_test_servers::{AccessKey, Moto, python};

use crate::client::Issued;
use crate::pki::{Authority, Certified};
use crate::port;
use crate::sts_double::{StsDouble, Trust};
use crate::world::{Settings, World, plugin_stanza, program};

/// An account: moto, and the double of STS in front of it.
pub struct Aws {
    /// The account.
    pub moto: Moto,
    /// What the broker takes for STS.
    pub sts: StsDouble,
}

impl Aws {
    /// A furnished account.
    pub fn start() -> Self {
        let moto = Moto::start();
        let sts = StsDouble::start(&moto);
        Self { moto, sts }
    }

    /// A world whose broker has a key of the account's user `claviger`: backend `aws`.
    pub fn world(&self) -> World {
        self.world_with_key(self.moto.root_key())
    }

    /// The same with another key.
    pub fn world_with_key(&self, key: &AccessKey) -> World {
        let auth = signing("file:secrets/aws-id", "file:secrets/aws-key", "sts");
        let backend = self.backend("aws", &auth, SCOPES);
        let world = world_with(format!("{}{backend}", plugin_stanza("aws-sts")));
        world.write("secrets/aws-id", &key.id);
        world.write("secrets/aws-key", &key.secret);
        world
    }

    /// A world whose broker keeps a key of the account's user `claviger` itself, so that it can
    /// replace it: backend `aws`, with `more` about its connection `sts`, and after it `connections`.
    pub fn world_with_kept_key(&self, more: &str, connections: &str) -> World {
        let auth = signing("store:aws/id", "store:aws/key", "sts");
        let backend =
            self.backend("aws", &format!("{auth}{more}"), &format!("{connections}{SCOPES}"));
        let world = world_with(format!("{}{backend}", plugin_stanza("aws-sts")));
        let AccessKey { id, secret } = self.moto.root_key();
        for (name, value) in [("aws/id", id), ("aws/key", secret)] {
            world.write("secrets/kept", value);
            let kept = std::fs::File::open(world.path().join("secrets/kept")).expect("a file");
            let mut put = Command::new(program("clavigerd"));
            put.args(["secret", "put", name, "--config"]).arg(world.config());
            let output = put.stdin(kept).output().expect("clavigerd runs");
            assert!(output.status.success(), "{output:?}");
        }
        world
    }

    /// The connection with which the plugin replaces the key that the broker keeps.
    pub fn iam(&self) -> String {
        format!(
            "[backends.aws.connections.iam]\naddress = \"{}\"\n{}methods = [\"POST\"]\n\
             paths = [\"/\"]\nreach = [\"loopback\"]\n{IAM_READS}",
            self.sts.url(),
            signing("store:aws/id", "store:aws/key", "iam"),
        )
    }

    /// Runs a script with boto3 as the account's operator, and answers what it printed.
    pub fn operate(&self, script: &str) -> String {
        let output = self.boto3_with(self.moto.operator_key(), script);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}\n{}", self.moto.log_text());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a script with boto3 as the owner of an access key.
    pub fn boto3_with(&self, key: &AccessKey, script: &str) -> Output {
        let mut command = python();
        command.args(["-c", script]).env("AWS_ENDPOINT_URL", self.moto.url());
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", &key.secret);
        command.env("AWS_DEFAULT_REGION", "eu-central-1");
        command.output().expect("Python runs")
    }

    /// A world whose broker has no key of the account, only tokens that it signs itself: backend
    /// `aws-keyless`, whose role trusts the broker's issuer.
    pub fn world_without_key(&self) -> World {
        let page = IssuerPage::new();
        self.sts.trust(Trust {
            role_arn: REPORTS_ROLE.to_owned(),
            issuer: page.url.clone(),
            audience: "sts.amazonaws.com".to_owned(),
            subject: "backend:aws-keyless".to_owned(),
            authority: page.authority.clone(),
        });
        let backend = self.backend("aws-keyless", AUTH_TOKEN, SCOPES_KEYLESS);
        let world = world_with(format!("{}{}{backend}", page.stanza, plugin_stanza("aws-sts")));
        page.write_into(&world);
        world
    }

    /// Runs a script as the agent would: the SDK as it is, configured by the environment that the
    /// credential's fields name.
    pub fn boto3(&self, issued: &Issued, script: &str) -> Output {
        let mut command = python();
        command.args(["-c", script]).env("AWS_ENDPOINT_URL", self.moto.url());
        for field in issued.credential.fields.iter().filter(|field| !field.env.is_empty()) {
            command.env(&field.env, &field.value);
        }
        command.output().expect("Python runs")
    }

    fn backend(&self, name: &str, auth: &str, scopes: &str) -> String {
        let connection = format!(
            "address = \"{}\"\n{auth}methods = [\"POST\"]\npaths = [\"/\"]\nreach = [\"loopback\"]\n{READS}",
            self.sts.url()
        );
        format!(
            "[backends.{name}]\nplugin = \"aws-sts\"\n{}\
             [backends.{name}.connections.sts]\n{connection}{}",
            if name == "aws" { "" } else { "settings = { identity = \"web-identity\" }\n" },
            scopes.replace("BACKEND", name).replace("BULK", &"x".repeat(BULK_CHARS)),
        )
    }
}

/// Where a world's broker publishes its keys, over TLS.
pub struct IssuerPage {
    /// The issuer.
    pub url: String,
    /// The authority of its certificate, PEM.
    pub authority: String,
    /// What the configuration says of it.
    pub stanza: String,
    certified: Certified,
}

impl IssuerPage {
    /// On a port of its own.
    pub fn new() -> Self {
        let address = format!("127.0.0.1:{}", port::free());
        let authority = Authority::new();
        let stanza = format!(
            "[issuer]\nurl = \"https://{address}\"\naddress = \"{address}\"\n\
             certificate = \"issuer.pem\"\nkey = \"file:secrets/issuer-key\"\n"
        );
        Self {
            url: format!("https://{address}"),
            authority: authority.pem(),
            stanza,
            certified: authority.server(),
        }
    }

    /// Writes the files that the stanza names, and the authority as `issuer-ca.pem`.
    pub fn write_into(&self, world: &World) {
        world.write("issuer.pem", &self.certified.certificate);
        world.write("secrets/issuer-key", &self.certified.key);
        world.write("issuer-ca.pem", &self.authority);
    }
}

impl Default for IssuerPage {
    fn default() -> Self {
        Self::new()
    }
}

/// A world with the role `report-builder` and this at the end of its configuration.
pub fn world_with(more: String) -> World {
    let world = World::with(Settings { more, ..Settings::default() });
    world.write("prompts/report-builder.md", PROMPT);
    world.write("policies/aws.cedar", POLICIES);
    world
}

/// The role that trusts the broker and may read the bucket `reports`.
pub const REPORTS_ROLE: &str = "arn:aws:iam::123456789012:role/reports";

const PROMPT: &str = "---\nname: report-builder\nauthorizations:\n  - aws.reports.read\n  \
                      - tokens.reports\n---\nYou build the quarterly report.\n";

const POLICIES: &str = r#"
@id("aws")
permit (principal in Role::"report-builder", action == Action::"issue", resource);
"#;

fn signing(id: &str, key: &str, service: &str) -> String {
    let keys = format!("access_key_id = \"{id}\", secret_access_key = \"{key}\"");
    format!(
        "auth = {{ sigv4 = {{ {keys}, region = \"eu-central-1\", service = \"{service}\" }} }}\n"
    )
}

const AUTH_TOKEN: &str = "auth = { web-identity = { audience = \"sts.amazonaws.com\", \
                          form_parameter = \"WebIdentityToken\", claims = \
                          [\"https://aws.amazon.com/tags\", \
                          \"https://aws.amazon.com/source_identity\"] } }\n";

/// What the plugin reads of the answers of STS, as the configuration says it.
pub const READS: &str = r#"reads = ["/*/*/Credentials/AccessKeyId", "/*/*/Credentials/Expiration", "/*/*/AssumedRoleUser/Arn", "/ErrorResponse/Error/Code", "/ErrorResponse/Error/Message"]
"#;

/// What it reads of the answers of IAM.
const IAM_READS: &str = r#"reads = ["/*/*/AccessKeyMetadata/member/AccessKeyId", "/*/*/AccessKeyMetadata/member/Status", "/*/*/AccessKeyLastUsed/LastUsedDate", "/*/*/AccessKey/AccessKeyId", "/ErrorResponse/Error/Code", "/ErrorResponse/Error/Message"]
"#;

const SCOPES: &str = r#"
[backends.BACKEND.scopes.reports]
authorization = "aws.reports.read"
role_arn = "arn:aws:iam::123456789012:role/reports"
region = "eu-central-1"
policy = { Statement = [{ Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::reports/*"] }] }
[backends.BACKEND.scopes.raised]
authorization = "aws.reports.read"
short_ttl = "raise"
role_arn = "arn:aws:iam::123456789012:role/reports"
region = "eu-central-1"
[backends.BACKEND.scopes.bulky]
authorization = "aws.reports.read"
role_arn = "arn:aws:iam::123456789012:role/reports"
region = "eu-central-1"
policy = { Statement = [{ Effect = "Allow", Action = "s3:GetObject", Resource = "BULK" }] }
[backends.BACKEND.scopes.payroll]
authorization = "aws.reports.read"
role_arn = "arn:aws:iam::123456789012:role/payroll"
region = "eu-central-1"
[backends.BACKEND.scopes.long]
authorization = "aws.reports.read"
max_ttl = "8h"
role_arn = "arn:aws:iam::123456789012:role/reports"
region = "eu-central-1"
"#;

const SCOPES_KEYLESS: &str = r#"
[backends.BACKEND.scopes.reports]
authorization = "aws.reports.read"
role_arn = "arn:aws:iam::123456789012:role/reports"
region = "eu-central-1"
[backends.BACKEND.scopes.payroll]
authorization = "aws.reports.read"
role_arn = "arn:aws:iam::123456789012:role/payroll"
region = "eu-central-1"
"#;

/// A policy that STS takes as plain text, but not together with the tags.
const BULK_CHARS: usize = 1900;
