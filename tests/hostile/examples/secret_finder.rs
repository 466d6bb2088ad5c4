//! Attacks the opacity of secrets: mints honestly, then tells the log, the lease and an error
//! everything it can see: each getter, each error text, what the database shows, and every
//! readable run of bytes in its memory. Neither the root password nor the minted one may be in it.
//!
//! With the parameter `end` = `error` the findings go into the error instead of the lease.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind, Lease, Secret, log};

struct SecretFinder;

claviger_plugin_sdk::export!(Hostile<SecretFinder>, manifest = "sql.json");

impl Attack for SecretFinder {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        let secret = Secret::generate(192)?;
        let mut seen = Findings::default();
        seen.add("request", &format!("{request:?}"));
        seen.add("secret", &format!("{secret:?}"));
        seen.add("too weak", &format!("{:?}", Secret::generate(8)));
        ask_the_database(request, &secret, &mut seen)?;
        lease.set_field("user", &login(request))?;
        lease.set_secret("password", &secret)?;
        seen.add("field that is secret", &format!("{:?}", lease.set_field("password", "mine")));
        seen.add("secret as a field", &format!("{:?}", lease.set_secret("report", &secret)));
        for (name, value) in std::env::vars() {
            seen.add(&name, &value);
        }
        memory::add_readable(&mut seen);
        let rest = seen.tell();
        match request.parameters.get("end").map(String::as_str) {
            Some("error") => Err(Error::new(ErrorKind::Other, rest)),
            _ => Ok(rest),
        }
    }
}

fn login(request: &Request) -> String {
    format!("clav_{}", request.intent)
}

fn ask_the_database(request: &Request, secret: &Secret, seen: &mut Findings) -> Result<(), Error> {
    let admin = Connection::open("admin")?;
    let create = Sql::new("CREATE ROLE ")
        .ident(&login(request))
        .text(" LOGIN PASSWORD ")
        .scram_sha256(secret, 1);
    admin.execute(&create)?;
    seen.add("where", &format!("{} {} {}", admin.host(), admin.port(), admin.database()));
    for query in QUERIES {
        seen.add(query, &format!("{:?}", admin.query(&Sql::new(query))));
    }
    // The verifier inside statements that fail: error texts like to quote their statement.
    for (how, sql) in [
        ("syntax", Sql::new("SELEC ").scram_sha256(secret, 1)),
        ("cast", Sql::new("SELECT CAST(").scram_sha256(secret, 1).text(" AS int)")),
        ("too many iterations", Sql::new("SELECT ").scram_sha256(secret, 2_000_000)),
        ("column", Sql::new("SELECT nothing_here, ").scram_sha256(secret, 1)),
    ] {
        seen.add(how, &format!("{:?}", admin.query(&sql)));
    }
    Ok(())
}

/// What was seen, as text.
#[derive(Default)]
pub struct Findings(Vec<u8>);

impl Findings {
    fn add(&mut self, what: &str, text: &str) {
        self.0.extend_from_slice(what.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'\n');
    }

    /// Tells the log as much as a call may, and returns as much of the rest as a lease may hold.
    /// Pieces overlap, so that no secret is cut in two.
    fn tell(&self) -> String {
        let step = LINE_BYTES - OVERLAP_BYTES;
        let piece = |start: usize, bytes: usize| {
            let end = self.0.len().min(start + bytes);
            String::from_utf8_lossy(self.0.get(start..end).unwrap_or_default()).into_owned()
        };
        for line in 0..LINES {
            log::info(&piece(line * step, LINE_BYTES), &[]);
        }
        piece(LINES * step, REST_BYTES)
    }
}

const QUERIES: [&str; 7] = [
    "SELECT current_user, session_user, current_setting('server_version')",
    "SELECT name, setting FROM pg_settings WHERE source NOT IN ('default', 'override')",
    "SELECT pid, usename, client_addr, query FROM pg_stat_activity",
    "SELECT rolname, rolpassword FROM pg_authid",
    "SELECT conninfo FROM pg_stat_wal_receiver",
    "SELECT umoptions FROM pg_user_mappings",
    "SELECT setting FROM pg_db_role_setting, unnest(setconfig) AS setting",
];
/// Just under the 2 KiB that a line of the log may have.
const LINE_BYTES: usize = 2_000;
const OVERLAP_BYTES: usize = 100;
/// As many lines as a call may write.
const LINES: usize = 64;
/// Leaves room for the other fields in the 64 KiB of a lease.
const REST_BYTES: usize = 32 * 1024;

/// The instance's own linear memory.
#[cfg(target_arch = "wasm32")]
mod memory {
    use super::Findings;

    /// Adds every run of printable bytes that could hold a secret.
    #[expect(unsafe_code, reason = "reads linear memory at addresses that it has")]
    pub fn add_readable(seen: &mut Findings) {
        // Grown before the search and left out of it, so that it does not find itself.
        seen.0.reserve(FINDINGS_BYTES_MAX);
        let own = seen.0.as_ptr() as usize..seen.0.as_ptr() as usize + seen.0.capacity();
        let end = core::arch::wasm32::memory_size::<0>() * 64 * 1024;
        let mut run_start = 1;
        // SAFETY: every address below `end` is mapped, and no reference is formed to it.
        let byte_at = |address: usize| unsafe { core::ptr::read_volatile(address as *const u8) };
        for address in 1..=end {
            let inside = address < end && !own.contains(&address);
            if inside && byte_at(address).is_ascii_graphic() {
                continue;
            }
            let room = seen.0.capacity() - seen.0.len();
            if (RUN_BYTES_MIN..room).contains(&(address - run_start)) {
                seen.0.extend((run_start..address).map(byte_at));
                seen.0.push(b'\n');
            }
            run_start = address + 1;
        }
    }

    /// No secret of the tests is shorter, and shorter runs would fill the report with noise.
    const RUN_BYTES_MIN: usize = 12;
    /// All that the log and the lease can carry.
    const FINDINGS_BYTES_MAX: usize = 160 * 1024;
}

/// Elsewhere there is no instance to look into.
#[cfg(not(target_arch = "wasm32"))]
mod memory {
    pub fn add_readable(_: &mut super::Findings) {}
}
