//! What the running broker has given up: privileges, files, system calls, swap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::Agent;
use claviger_e2e::world::{ADMIN_PASSWORD, Settings, World, plugins};

#[tokio::test]
async fn every_thread_of_the_broker_is_behind_the_walls() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("threads");
    let mut threads = 0;
    for task in tasks {
        let path = task.expect("a thread").path().join("status");
        let status = std::fs::read_to_string(&path).expect("its status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(field("NoNewPrivs:").map(str::trim), Some("1"), "{status}");
        assert_eq!(field("Seccomp:").map(str::trim), Some("2"), "{status}");
        threads += 1;
    }
    assert!(threads > 3, "runtime, epochs, journal: {threads}");
    let log = broker.log();
    assert!(log.contains("\"landlock\":\"enforce, ") && log.contains("\"seccomp\":\"enforce\""));
}

#[tokio::test]
async fn a_reload_that_leads_outside_asks_for_a_restart_and_a_restart_grants_it() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let plugin = elsewhere.path().join("postgres.wasm");
    let shipped = plugins().join("postgres.wasm");
    std::fs::copy(&shipped, &plugin).expect("copied");
    world.configure(&shipped.display().to_string(), &plugin.display().to_string());
    let reload = claviger(&broker, &["reload"]).output().expect("claviger runs");
    let said = String::from_utf8_lossy(&reload.stdout).into_owned()
        + &String::from_utf8_lossy(&reload.stderr);
    assert_eq!(reload.status.code(), Some(1), "{said}");
    let folder = elsewhere.path().display().to_string();
    assert!(said.contains(&folder) && said.contains("restart the broker to use it"), "{said}");
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the earlier configuration goes on");
    assert!(broker.stop().await.success());
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the plugin is read at its new place");
}

#[tokio::test]
async fn what_is_switched_off_is_off_and_said() {
    let more = "[process]\nseccomp = \"off\"\nlandlock = \"off\"\nlock_memory = \"off\"\n";
    let world = World::with(Settings { more: more.to_owned(), ..Settings::default() });
    let broker = Broker::start(&world).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    assert_eq!(field("Seccomp:").map(str::trim), Some("0"), "{status}");
    assert_eq!(field("VmLck:").map(str::trim), Some("0 kB"), "{status}");
    let log = broker.log();
    assert!(log.contains("\"landlock\":\"off\"") && log.contains("\"seccomp\":\"off\""), "{log}");
}

/// Before anything else is opened: only root could open it later, and for everybody else each call
/// would be slower.
#[tokio::test]
async fn the_sandbox_finds_the_pages_that_a_call_has_written() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let can = (numbers.next(), numbers.next()) >= (Some(6), Some(7));
    let first = std::fs::read_link(format!("/proc/{}/fd/3", broker.pid())).expect("an open file");
    assert_eq!(first.ends_with("pagemap"), can, "{} on {release}", first.display());
    assert!(broker.log().contains(&format!("\"pagemap_scan\":{can}")), "{}", broker.log());
}

/// Where the limits allow locking, every place in memory that holds the root password is locked.
#[tokio::test]
async fn no_page_with_a_root_credential_can_be_swapped_out() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the password was used");
    if !broker.log().contains("\"locked\":\"current\"") {
        assert!(broker.log().contains("LimitMEMLOCK=infinity"), "{}", broker.log());
        return;
    }
    let found = places_of(ADMIN_PASSWORD.as_bytes(), broker.pid());
    assert!(!found.is_empty(), "the broker knows it, so this search must find it");
    let unlocked: Vec<_> = found.iter().filter(|(_, locked)| !locked).collect();
    assert!(unlocked.is_empty(), "{unlocked:?}");
}

/// The writable mappings of `pid` in which `needle` stands, and whether each is locked.
fn places_of(needle: &[u8], pid: u32) -> Vec<(String, bool)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("its mappings");
    let memory = Memory::of(pid);
    let mut found = Vec::new();
    let mut mapping = None;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let bound = |text| u64::from_str_radix(text, 16).expect("an address");
            let holds = line.contains(" rw") && memory.holds(needle, bound(from)..bound(to));
            mapping = holds.then(|| line.to_owned());
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let locked = flags.split_whitespace().any(|flag| flag == "lo");
            found.extend(mapping.take().map(|place| (place, locked)));
        }
    }
    found
}

/// The memory of another process, and which of its pages there are.
struct Memory {
    bytes: File,
    pages: File,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).expect("root may");
        Self { bytes: open("mem"), pages: open("pagemap") }
    }

    fn holds(&self, needle: &[u8], range: Range<u64>) -> bool {
        // The heap is reserved by the gigabyte; the sandbox's pool, whose slots hold what plugins
        // see and so no secret, by the terabyte.
        if range.end - range.start > MAPPING_BYTES_MAX {
            return false;
        }
        let count = usize::try_from((range.end - range.start) / PAGE_BYTES).expect("few");
        let mut entries = vec![0; count * 8];
        read_at(&self.pages, range.start / PAGE_BYTES * 8, &mut entries);
        let mut page = vec![0; usize::try_from(PAGE_BYTES).expect("small") + needle.len()];
        let present = entries.chunks(8).map(|entry| entry.last().is_some_and(|top| top >> 6 != 0));
        for (at, _) in (range.start..).step_by(4096).zip(present).filter(|(_, there)| *there) {
            let read = read_at(&self.bytes, at, &mut page);
            let seen = page.get(..read).expect("within");
            if seen.windows(needle.len()).any(|window| window == needle) {
                return true;
            }
        }
        false
    }
}

/// As much as there is.
fn read_at(file: &File, at: u64, into: &mut [u8]) -> usize {
    file.read_at(into, at).unwrap_or(0)
}

const PAGE_BYTES: u64 = 4096;

const MAPPING_BYTES_MAX: u64 = 2 << 30;
