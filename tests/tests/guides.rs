//! The guides of the platform team, tried command by command with our own programs. What stands in
//! for GitHub and for a cluster's API server is said in the guides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::guide::{Guide, replaced, run, shell, succeeded};
use claviger_e2e::world::{ADMIN_PASSWORD, World, plugins, sha256_of};
use claviger_e2e::{port, runner};
use claviger_test_servers::{KubernetesDouble, OidcProvider};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_branch_gets_what_the_guide_grants_and_one_of_a_pull_request_nothing() {
    let provider = OidcProvider::start(&["rsa-1"]);
    let (world, port, issuer) = (World::new(), port::free(), provider.issuer());
    let folder = world.path().display().to_string();
    let roles = format!("{folder}/prompts");
    let near = "audience = \"https://localhost\"\nreach = [\"loopback\"]\n";
    let guide = Guide::read(
        "github-actions",
        &[
            ("/etc/claviger/roles", &roles),
            ("/etc/claviger", &folder),
            ("https://token.actions.githubusercontent.com", &issuer),
            ("claviger.internal", "localhost"),
            ("audience = \"https://localhost\"\n", near),
            ("7443", &port.to_string()),
        ],
    );
    world.write("policies/teams.cedar", "");
    for part in ["openssl req", "[listen.tls]", "name: release-notes", "github.shop-main"] {
        run(world.path(), guide.block_with("sh", part));
    }
    run(world.path(), guide.block_with("sh", "clavigerd check"));
    let broker = Broker::start(&world).await;

    let job = Job::of(&guide, &world);
    let audience = "https%3A%2F%2Flocalhost";
    let subject = "repo:acme/shop:ref:refs/heads/main";
    let token = provider.workload_token(subject, "https://localhost");
    let output = job.run(&runner::variables(token.clone(), audience).await);
    assert_eq!(succeeded(&output, "the job").trim(), "10", "what the database answers");
    world.until_no_logins().await;

    let of_a_fork = provider.workload_token("repo:acme/shop:pull_request", "https://localhost");
    let output = job.run(&runner::variables(of_a_fork, audience).await);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    let [sentence] = guide.blocks("text")[..] else { panic!("the guide shows one refusal") };
    assert!(told.contains(sentence.trim()), "{told}");

    // A session of the branch that goes on, until it is ended as the guide says.
    let open = ["session", "open", "--role", "release-notes"];
    let opened = claviger(&broker, &open).env("CLAVIGER_WORKLOAD_TOKEN", token).output();
    succeeded(&opened.expect("claviger runs"), "a session");
    let revoke = guide.block_with("sh", "claviger revoke");
    let mut shell = shell(world.path(), revoke);
    shell.env("CLAVIGER_ADMIN_SOCKET", broker.admin_socket());
    succeeded(&shell.output().expect("a shell"), revoke);
    let sessions = claviger(&broker, &["session", "list"]).output().expect("claviger runs");
    let left = succeeded(&sessions, "sessions");
    assert!(!left.contains("release-notes"), "{left}");
}

/// The job of the guide's workflow.
struct Job {
    folder: PathBuf,
    variables: Vec<(String, String)>,
    script: String,
}

impl Job {
    fn of(guide: &Guide, world: &World) -> Self {
        let workflow = guide.block_with("yaml", "claviger run");
        let variables = workflow.lines().filter_map(|line| {
            let (name, value) = line.trim().split_once(": ")?;
            name.starts_with("CLAVIGER_").then(|| (name.to_owned(), value.to_owned()))
        });
        let (_, script) = workflow.split_once("run: >-\n").expect("a command");
        let script = script.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let folder = world.path().join("checkout");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::copy(world.path().join("tls/ca.pem"), folder.join("claviger-ca.pem"))
            .expect("committed");
        Self { folder, variables: variables.collect(), script }
    }

    fn run(&self, of_runner: &[(&'static str, String)]) -> std::process::Output {
        let mut shell = shell(&self.folder, &self.script);
        shell.envs(self.variables.iter().map(|(name, value)| (name, value)));
        shell.envs(of_runner.iter().map(|(name, value)| (name, value)));
        tokio::task::block_in_place(|| shell.output()).expect("a shell")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_what_the_guide_grants_from_files_as_a_cluster_mounts_them() {
    let (world, cluster, port) = (World::new(), KubernetesDouble::start(), port::free());
    let checkout = world.path().join("checkout");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes");
    let packaging = checkout.join("packaging/kubernetes");
    copy_folder(&source, &packaging);
    let guide = Guide::read("kubernetes", &[("DNS:claviger.claviger.svc", "DNS:localhost")]);
    run(&checkout, guide.block_with("sh", "openssl req"));
    std::fs::write(packaging.join("secrets/orders-db"), ADMIN_PASSWORD).expect("written");

    let file = mount(&packaging, &world, (&cluster, port));
    let broker = Broker::start_with(&world, |command| {
        *command = with_config(command, &file);
    })
    .await;

    let pod = Pod { packaging, token: world.path().join("token"), port };
    let output = pod.run(&broker, &cluster.token_in("claviger", "order-reader", "claviger"));
    assert_eq!(succeeded(&output, "the pod").trim(), "10", "what the database answers");
    world.until_no_logins().await;
    let output = pod.run(&broker, &cluster.token_in("claviger", "another", "claviger"));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The agent's pod of `agent.yaml`.
struct Pod {
    packaging: PathBuf,
    /// Where its token is mounted.
    token: PathBuf,
    port: u16,
}

impl Pod {
    /// Runs its command with its environment, with `token` as its service account's.
    fn run(&self, broker: &Broker, token: &str) -> std::process::Output {
        std::fs::write(&self.token, token).expect("written");
        let manifest = std::fs::read_to_string(self.packaging.join("agent.yaml")).expect("read");
        let authority = self.packaging.join("tls/ca.pem").display().to_string();
        let own = [
            ("/var/run/claviger/token", &*self.token.display().to_string()),
            ("https://claviger.claviger.svc:7443", &format!("https://localhost:{}", self.port)),
            ("/etc/claviger/ca.pem", &authority),
        ];
        let manifest = replaced(&manifest, &own);
        let (_, words) = manifest.split_once("command:\n").expect("a command");
        let words = words.lines().map_while(|line| line.trim().strip_prefix("- "));
        let mut command = claviger(broker, &[]);
        // The first word is the program, which is our own here.
        command.args(words.skip(1)).env_remove("CLAVIGER_SOCKET");
        let variables = manifest.lines().filter_map(|line| {
            let variable = line.trim().strip_prefix("- { name: CLAVIGER_")?;
            variable.trim_end_matches(" }").split_once(", value: ")
        });
        for (name, value) in variables {
            command.env(format!("CLAVIGER_{name}"), value.trim_matches('"'));
        }
        tokio::task::block_in_place(|| command.output()).expect("claviger runs")
    }
}

/// The same program with another configuration.
fn with_config(command: &Command, config: &Path) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(["serve", "--config"]).arg(config);
    other
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a file");
        let to = to.join(entry.file_name());
        let skipped = ["secrets", "tls"].iter().any(|name| entry.file_name() == *name);
        match entry.file_type().expect("a type").is_dir() {
            true if skipped => {}
            true => copy_folder(&entry.path(), &to),
            false => {
                std::fs::copy(entry.path(), to).expect("copied");
            }
        }
    }
}

/// Mounts what `broker.yaml` mounts, where it mounts it, below a folder instead of `/etc/claviger`,
/// and says where the configuration is: that of the packaging, on this machine.
fn mount(packaging: &Path, world: &World, at: (&KubernetesDouble, u16)) -> PathBuf {
    let root = world.path().join("pod");
    let kustomization = std::fs::read_to_string(packaging.join("kustomization.yaml")).unwrap();
    let broker = std::fs::read_to_string(packaging.join("broker.yaml")).unwrap();
    let config = std::fs::read_to_string(packaging.join("claviger.toml")).unwrap();
    let config = on_this_machine(&config, (world, &root), at);
    std::fs::write(packaging.join("claviger.toml"), config).unwrap();
    for (volume, resource, mode) in [
        ("config", "claviger-config", 0o644),
        ("policies", "claviger-policies", 0o644),
        ("roles", "claviger-roles", 0o644),
        ("secrets", "claviger-secrets", 0o440),
        ("tls", "claviger-tls", 0o440),
    ] {
        let place = format!("name: {volume}, mountPath: /etc/claviger/{volume}, readOnly: true");
        assert!(broker.contains(&place), "`{volume}` is mounted elsewhere");
        assert!(broker.contains(&format!("ame: {resource}")), "`{resource}` is not mounted");
        let (_, files) = kustomization.split_once(&format!("name: {resource}\n")).unwrap();
        let (_, files) = files.split_once("files: [").unwrap();
        let (files, _) = files.split_once(']').unwrap();
        let files: Vec<_> = files.split(", ").map(|file| packaging.join(file)).collect();
        mount_volume(&root.join(volume), &files, mode);
    }
    root.join("config/claviger.toml")
}

/// As a kubelet does: the files stand behind a link that is turned when they change.
fn mount_volume(folder: &Path, files: &[PathBuf], mode: u32) {
    let data = folder.join("..2026_11_26");
    std::fs::create_dir_all(&data).unwrap();
    symlink("..2026_11_26", folder.join("..data")).unwrap();
    for file in files {
        let name = file.file_name().unwrap();
        std::fs::copy(file, data.join(name)).unwrap();
        std::fs::set_permissions(data.join(name), PermissionsExt::from_mode(mode)).unwrap();
        symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
    }
}

/// The packaging's configuration with the places of this machine, and nothing else changed.
fn on_this_machine(
    config: &str,
    (world, root): (&World, &Path),
    (cluster, port): (&KubernetesDouble, u16),
) -> String {
    world.write("secrets/reviewer", cluster.reviewer_token());
    let plugin = plugins().join("postgres.wasm");
    let folder = world.path().display();
    let database = format!("127.0.0.1:{}/postgres?sslmode=disable", world.postgres.port());
    let own = [
        ("/etc/claviger", root.display().to_string()),
        ("/run/claviger", folder.to_string()),
        ("/var/lib/claviger", format!("{folder}/state")),
        ("0.0.0.0:7443", format!("127.0.0.1:{port}")),
        ("https://kubernetes.default.svc\"", format!("{}\"", cluster.url())),
        ("reach = [\"private\"]", "reach = [\"loopback\"]".to_owned()),
        (", ca = \"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt\"", String::new()),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            format!("{folder}/secrets/reviewer"),
        ),
        ("/usr/lib/claviger/plugins/postgres.wasm", plugin.display().to_string()),
        (&"0".repeat(64), sha256_of(&plugin)),
        ("orders-db.shop.svc:5432/orders?sslmode=verify-full", database),
    ];
    replaced(config, &own.each_ref().map(|(theirs, ours)| (*theirs, ours.as_str())))
}
