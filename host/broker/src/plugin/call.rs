//! The state of one call: its limits, its secrets, what it has used. Dropped with its store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use claviger_core::name::PluginName;
use tokio::time::Instant;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::backend::{Backend, SqlConnection};
use super::engine::TABLE_ELEMENTS_MAX;
use crate::egress::redact::{Redactor, SharedSecret};
use crate::egress::sql::Session;
use crate::egress::{Failure, FailureKind};
use crate::issuer::Subject;

/// The state of one call; the data of its store.
pub struct Call {
    /// The plugin's name, for logs.
    pub(super) plugin: PluginName,
    /// The backend; `None` while the configuration is being validated.
    pub(super) backend: Option<Arc<Backend>>,
    /// Whom it issues for; `None` in every other call.
    pub(super) subject: Option<Arc<Subject>>,
    /// Host resources that the guest holds.
    pub(super) table: ResourceTable,
    /// How much memory it has taken.
    pub(super) memory: Memory,
    /// What must not leave.
    pub(super) redactor: Redactor,
    /// What it has used up.
    pub(super) used: Used,
    /// When host calls must be done: a little before the call's own end, so that the guest can
    /// still answer.
    pub(super) host_end: Instant,
    /// What is known of the call even when it does not come to an end.
    pub(super) progress: Arc<Progress>,
    wasi: Option<WasiCtx>,
    stderr: MemoryOutputPipe,
}

/// What a call has used up of what the contract allows it.
#[derive(Debug, Default)]
pub struct Used {
    pub(super) secrets: u32,
    pub(super) secret_bytes: usize,
    pub(super) sessions: u32,
    pub(super) statements: usize,
    pub(super) requests: u32,
    pub(super) scram_iterations: u32,
    pub(super) log_lines: u32,
    pub(super) log_lines_dropped: u32,
}

/// What is known of a call even when it does not come to an end.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicBool,
    pool_wait_micros: AtomicU64,
    quarantined: AtomicBool,
}

impl Progress {
    /// Something is about to be sent upstream.
    pub(super) fn sending(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Whether the upstream may have acted.
    pub(super) fn sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// The call's trap was the one too many.
    pub(super) fn quarantined(&self) {
        self.quarantined.store(true, Ordering::Relaxed);
    }

    /// Whether the plugin is quarantined because of this call.
    pub(super) fn led_to_quarantine(&self) -> bool {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// The call waited for a connection.
    pub(super) fn waited_for_pool(&self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.pool_wait_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How long it waited for connections in all.
    pub(super) fn pool_wait(&self) -> Duration {
        Duration::from_micros(self.pool_wait_micros.load(Ordering::Relaxed))
    }
}

/// A secret as the guest holds it: a handle and nothing else.
pub struct SecretHandle(pub(super) SharedSecret);

/// An open connection as the guest holds it.
pub struct OpenSession {
    pub(super) connection: Arc<SqlConnection>,
    pub(super) session: Session,
}

impl Call {
    pub(super) fn new(plugin: PluginName, backend: Option<Arc<Backend>>, memory: Memory) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let redactor = backend.as_ref().map(|backend| backend.redactor()).unwrap_or_default();
        Self {
            plugin,
            backend,
            subject: None,
            table,
            memory,
            redactor,
            used: Used::default(),
            host_end: Instant::now(),
            progress: Arc::default(),
            wasi: None,
            stderr: MemoryOutputPipe::new(STDERR_BYTES_MAX),
        }
    }

    /// Counts `count` statements about to be sent.
    pub(super) fn spend_statements(&mut self, count: usize) -> Result<(), Failure> {
        self.used.statements = self.used.statements.saturating_add(count);
        if self.used.statements > STATEMENTS_MAX {
            let message = "a call runs at most 64 statements";
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        Ok(())
    }

    /// Counts one more HTTP request about to be sent.
    pub(super) fn spend_request(&mut self) -> Result<(), Failure> {
        if self.used.requests >= REQUESTS_MAX {
            let message = "a call sends at most 8 requests";
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        self.used.requests += 1;
        Ok(())
    }

    /// What the guest wrote to standard error, without secrets: the message of a panic.
    pub(super) fn stderr_text(&self) -> String {
        let text = self.stderr.contents();
        self.redactor.clean(String::from_utf8_lossy(&text).trim(), STDERR_BYTES_MAX)
    }
}

/// Rust's standard library imports WASI whether it uses it or not. What it gets is empty: no
/// environment, no arguments, no files, no network. Most calls never ask, so it is made late.
impl WasiView for Call {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let stderr = &self.stderr;
        let ctx = self.wasi.get_or_insert_with(|| {
            let mut builder = WasiCtx::builder();
            builder
                .stdout(stderr.clone())
                .stderr(stderr.clone())
                .max_random_size(RANDOM_BYTES_MAX)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false);
            builder.build()
        });
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// The memory of one call, over all its linear memories together: wasmtime's own limits count
/// each memory alone.
#[derive(Debug)]
pub struct Memory {
    bytes: usize,
    bytes_max: usize,
    /// Whether the guest was refused more; it then mostly panics, and this says why.
    pub(super) refused: bool,
}

impl Memory {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes: 0, bytes_max, refused: false }
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.bytes.saturating_sub(current).saturating_add(desired);
        if total > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        self.bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// A plugin holds a lease, a request, a few secrets and statements; a flood of handles is a fault.
pub(super) const RESOURCES_MAX: usize = 256;

/// Documented in the plugin contract: a login takes one or two, ending one takes some looks.
const STATEMENTS_MAX: usize = 64;

/// Documented in the plugin contract: a look, a change and a few pages of a list.
const REQUESTS_MAX: u32 = 8;

/// Enough for a panic's message and place.
const STDERR_BYTES_MAX: usize = 2 * 1024;

/// A seed for a hash map takes 16 bytes.
const RANDOM_BYTES_MAX: u64 = 4 * 1024;

/// The plugin, its adapters and the shims between them: a Rust component has three or four.
const INSTANCES_MAX: usize = 16;

/// As many as a slot of the pool has.
const MEMORIES_MAX: usize = 2;
