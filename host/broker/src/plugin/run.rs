//! Runs one call in a fresh sandbox, under three clocks, and says what stopped it.
//!
//! The clocks: processor time of the guest (the epoch), the time of the whole call (a timeout
//! round it), and a deadline inside each host call (the epoch stands still for a guest that
//! waits in the host).

use std::sync::Arc;
use std::time::Duration;

use claviger_core::issued::Issued;
use claviger_core::ports::{PluginError, PluginErrorKind};
use tokio::time::{Instant, timeout_at};
use wasmtime::{Store, Trap, UpdateDeadline};

use super::admit::Loaded;
use super::backend::Backend;
use super::bindings::{self, CODE_BYTES_MAX, MESSAGE_BYTES_MAX, Problem};
use super::call::{Call, Memory, Progress, RESOURCES_MAX};
use super::engine::Sandbox;
use super::meter::{CpuMeter, Metered};
use super::observe::{Observation, Observe, Outcome};
use super::plain;
use super::request::{
    DeleteKeyRequest, IssueRequest, MakeKeyRequest, NewKey, RevokeRequest, RotateRequest,
};
use super::spec::Limits;
use crate::egress::{Failure, FailureKind};
use crate::issuer::Subject;

/// What is to be done.
pub enum Task {
    /// `validate-config` of this document.
    Validate(String),
    /// `issue`.
    Issue(IssueRequest),
    /// `revoke`.
    Revoke(RevokeRequest),
    /// `revoke-all`, of a plugin that has it.
    RevokeAll(Vec<RevokeRequest>),
    /// `rotate-root`, of a plugin that has it.
    Rotate(RotateRequest),
    /// `make-key`, of a plugin that has it.
    MakeKey(MakeKeyRequest),
    /// `delete-key`, of a plugin that has it.
    DeleteKey(DeleteKeyRequest),
}

/// What came of it.
pub enum Answer {
    /// What the plugin finds wrong.
    Problems(Vec<Problem>),
    /// What was minted.
    Issued(Issued),
    /// It is gone, or all of them are.
    Revoked,
    /// The account has the new credential.
    Rotated,
    /// The backend has made this key.
    Made(NewKey),
    /// The key is gone.
    Deleted,
}

/// One call, before it runs.
pub struct Run<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) loaded: &'a Arc<Loaded>,
    pub(super) backend: Option<Arc<Backend>>,
    pub(super) observe: &'a Observe,
}

/// How a call ended, if not well.
enum Ended {
    /// The plugin or the upstream said no.
    Failed(Failure),
    /// The guest broke a limit of the sandbox.
    Broke(String),
    /// The call's time ran out.
    TimedOut,
    /// No turn came.
    Busy,
    /// The plugin is quarantined for some seconds more.
    Quarantined(u64),
}

impl Run<'_> {
    /// Runs `task` and reports it.
    pub async fn perform(self, task: Task) -> Result<Answer, PluginError> {
        let began = Instant::now();
        let call = task.call();
        let progress = Arc::new(Progress::default());
        let mut turn_wait = Duration::ZERO;
        let ended = self.sandboxed(task, &progress, (began, &mut turn_wait)).await;
        let outcome = match &ended {
            Ok(_) => Outcome::Ok,
            Err(ended) => ended.outcome(),
        };
        (self.observe)(&Observation {
            plugin: &self.loaded.name,
            call,
            outcome,
            duration: began.elapsed(),
            turn_wait,
            pool_wait: progress.pool_wait(),
            quarantined_secs: self
                .loaded
                .quarantined_secs()
                .filter(|_| progress.led_to_quarantine()),
        });
        ended.map_err(|ended| self.error(ended, &progress))
    }

    /// As `perform`, on a thread of its own: for loading, which may itself run inside a runtime
    /// and must not depend on one. Calls that reach connections never come this way.
    pub fn perform_blocking(self, task: Task) -> Result<Answer, PluginError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let loaded = Arc::clone(self.loaded);
        let run = move || {
            runtime.enable_time().build().map(|runtime| runtime.block_on(self.perform(task)))
        };
        let joined = std::thread::scope(|scope| scope.spawn(run).join());
        match joined {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(PluginError {
                plugin: loaded.name.as_str().to_owned(),
                kind: PluginErrorKind::NotLoaded,
                code: None,
                message: "no thread could be started to check it".to_owned(),
                request_sent: false,
                retry_after: None,
            }),
        }
    }

    async fn sandboxed(
        &self,
        task: Task,
        progress: &Arc<Progress>,
        (began, turn_wait): (Instant, &mut Duration),
    ) -> Result<Answer, Ended> {
        if let Some(secs) = self.loaded.quarantined_secs() {
            return Err(Ended::Quarantined(secs));
        }
        let turn = self.sandbox.turn(&self.loaded.turns).await;
        *turn_wait = began.elapsed();
        let _turn = turn.ok_or(Ended::Busy)?;
        let end = began + self.sandbox.limits.wall;
        let meter = Arc::new(CpuMeter::default());
        let mut store = self.store(Arc::clone(progress), &meter, end);
        store.data_mut().subject = task.subject();
        let call = in_store(store, Arc::clone(self.loaded), task);
        let ended = match timeout_at(end, Metered::new(call, meter)).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_panic)) => Err(Ended::Broke("made the host panic: report this".to_owned())),
            Err(_) => Err(Ended::TimedOut),
        };
        match &ended {
            Err(Ended::Broke(reason)) => self.count_trap(reason, progress),
            Err(_) => {}
            Ok(_) => self.loaded.ended_well(),
        }
        ended
    }

    /// A store with every limit set. INVARIANT (fresh-instance): it serves one call and is
    /// dropped with it, so nothing that one request leaves in memory meets the next.
    fn store(&self, progress: Arc<Progress>, meter: &Arc<CpuMeter>, end: Instant) -> Store<Call> {
        let limits = &self.sandbox.limits;
        let share = limits.share(self.loaded.manifest.limits_class);
        let memory = Memory::new(share.memory_bytes_max);
        let mut call = Call::new(self.loaded.name.clone(), self.backend.clone(), memory);
        call.progress = progress;
        call.host_end = end.checked_sub(limits.wall / ANSWER_SHARE).unwrap_or(end);
        let mut store = Store::new(&self.sandbox.engine, call);
        store.limiter(|call| &mut call.memory);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.set_max_component_handles(RESOURCES_MAX);
        store.set_epoch_deadline(1);
        let (meter, most) = (Arc::clone(meter), share.guest_cpu);
        store.epoch_deadline_callback(move |_| {
            let overrun = meter.used() > most;
            // Making way at every tick keeps a busy guest from holding up its thread's others.
            Ok(if overrun { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
        });
        store
    }

    fn count_trap(&self, reason: &str, progress: &Progress) {
        let plugin = self.loaded.name.as_str();
        tracing::warn!({ plugin.name = plugin }, "plugin broke the sandbox: {reason}");
        if self.loaded.trapped() {
            progress.quarantined();
            tracing::error!({ plugin.name = plugin }, "plugin quarantined: it keeps breaking");
        }
    }

    fn error(&self, ended: Ended, progress: &Progress) -> PluginError {
        let limits = &self.sandbox.limits;
        let (kind, message) = match ended {
            Ended::Failed(failure) => return self.failure(failure, progress),
            Ended::Broke(reason) => (PluginErrorKind::Sandbox, format!("it {reason}")),
            Ended::TimedOut => (PluginErrorKind::Timeout, timed_out(limits)),
            Ended::Busy => (PluginErrorKind::Unavailable, busy(limits)),
            Ended::Quarantined(secs) => (PluginErrorKind::NotLoaded, quarantined(secs)),
        };
        PluginError {
            plugin: self.loaded.name.as_str().to_owned(),
            kind,
            code: None,
            message,
            request_sent: progress.sent(),
            retry_after: None,
        }
    }

    /// The plugin's word on whether anything was sent counts only where something was.
    fn failure(&self, failure: Failure, progress: &Progress) -> PluginError {
        PluginError {
            plugin: self.loaded.name.as_str().to_owned(),
            kind: kind(failure.kind),
            code: failure.code,
            message: failure.message,
            request_sent: failure.request_sent && progress.sent(),
            retry_after: failure.retry_after,
        }
    }
}

/// Instantiates, calls, and takes what may leave out of the store before it is dropped.
async fn in_store(
    mut store: Store<Call>,
    loaded: Arc<Loaded>,
    task: Task,
) -> Result<Answer, Ended> {
    let answer = answer(&mut store, &loaded, task).await;
    let call = store.data();
    let dropped = call.used.log_lines_dropped;
    if dropped > 0 {
        let plugin = loaded.name.as_str();
        tracing::warn!({ plugin.name = plugin }, "{dropped} log lines of one call were dropped");
    }
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(failure)) => Err(Ended::Failed(cleaned(failure, call))),
        Err(error) => Err(Ended::Broke(reason(&error, call))),
    }
}

async fn answer(
    store: &mut Store<Call>,
    loaded: &Loaded,
    task: Task,
) -> wasmtime::Result<Result<Answer, Failure>> {
    let task = match (task, &loaded.batch, &loaded.rotating, &loaded.key_rotating) {
        (Task::RevokeAll(requests), Some(batch), ..) => {
            let plugin = batch.instantiate_async(&mut *store).await?;
            let revoked = bindings::revoke_all(store, &plugin, requests).await?;
            return Ok(revoked.map(|()| Answer::Revoked));
        }
        (Task::Rotate(request), _, Some(rotating), _) => {
            let plugin = rotating.instantiate_async(&mut *store).await?;
            let rotated = bindings::rotate_root(store, &plugin, request).await?;
            return Ok(rotated.map(|()| Answer::Rotated));
        }
        (Task::MakeKey(request), _, _, Some(rotating)) => {
            let plugin = rotating.instantiate_async(&mut *store).await?;
            return Ok(bindings::make_key(store, &plugin, request).await?.map(Answer::Made));
        }
        (Task::DeleteKey(request), _, _, Some(rotating)) => {
            let plugin = rotating.instantiate_async(&mut *store).await?;
            let deleted = bindings::delete_key(store, &plugin, request).await?;
            return Ok(deleted.map(|()| Answer::Deleted));
        }
        (task, ..) => task,
    };
    let plugin = loaded.pre.instantiate_async(&mut *store).await?;
    Ok(match task {
        Task::Validate(config) => {
            Ok(Answer::Problems(bindings::validate(store, &plugin, &config).await?))
        }
        Task::Issue(request) => {
            let issued = bindings::issue(store, &plugin, &loaded.manifest, request).await?;
            issued.map(Answer::Issued)
        }
        Task::Revoke(request) => {
            bindings::revoke(store, &plugin, request).await?.map(|()| Answer::Revoked)
        }
        Task::RevokeAll(_) => Err(Failure::unsent(FailureKind::Unsupported, NO_BATCH)),
        Task::Rotate(_) | Task::MakeKey(_) | Task::DeleteKey(_) => {
            Err(Failure::unsent(FailureKind::Unsupported, NO_ROTATION))
        }
    })
}

fn cleaned(failure: Failure, call: &Call) -> Failure {
    Failure {
        code: failure.code.map(|code| shown(&code, CODE_BYTES_MAX, call)),
        message: shown(&failure.message, MESSAGE_BYTES_MAX, call),
        ..failure
    }
}

/// What the guest said, as an operator may see it: a line in the log cannot pose as several.
fn shown(text: &str, bytes_max: usize, call: &Call) -> String {
    plain::line(&call.redactor.clean(text, bytes_max), bytes_max)
}

/// What stopped a guest, after the word `it`.
fn reason(error: &wasmtime::Error, call: &Call) -> String {
    let said = call.stderr_text();
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => "used more processor time than a call may have".to_owned(),
        Some(Trap::StackOverflow) => "overflowed its stack".to_owned(),
        // A guest that is refused memory mostly panics, and its words tell nothing.
        _ if call.memory.refused => {
            return "asked for more memory than a call may have".to_owned();
        }
        Some(Trap::UnreachableCodeReached) => "panicked".to_owned(),
        Some(trap) => format!("trapped: {trap}"),
        None if error.downcast_ref::<wasmtime_wasi::I32Exit>().is_some() => "exited".to_owned(),
        None => format!("broke the sandbox: {}", error.root_cause()),
    };
    let text = if said.is_empty() { what } else { format!("{what}: {said}") };
    shown(&text, MESSAGE_BYTES_MAX, call)
}

fn timed_out(limits: &Limits) -> String {
    format!("it did not answer within {} ms", limits.wall.as_millis())
}

fn busy(limits: &Limits) -> String {
    format!("{} plugin calls are running already: try again in a moment", limits.calls_max)
}

fn quarantined(secs: u64) -> String {
    format!("it broke the sandbox three times within a minute and is quarantined for {secs} s more")
}

impl Task {
    fn subject(&self) -> Option<Arc<Subject>> {
        match self {
            Self::Issue(request) => Some(Arc::new(request.subject())),
            Self::Validate(_)
            | Self::Revoke(_)
            | Self::RevokeAll(_)
            | Self::Rotate(_)
            | Self::MakeKey(_)
            | Self::DeleteKey(_) => None,
        }
    }

    const fn call(&self) -> super::observe::Call {
        match self {
            Self::Validate(_) => super::observe::Call::ValidateConfig,
            Self::Issue(_) => super::observe::Call::Issue,
            Self::Revoke(_) => super::observe::Call::Revoke,
            Self::RevokeAll(_) => super::observe::Call::RevokeAll,
            Self::Rotate(_) => super::observe::Call::RotateRoot,
            Self::MakeKey(_) => super::observe::Call::MakeKey,
            Self::DeleteKey(_) => super::observe::Call::DeleteKey,
        }
    }
}

impl Ended {
    const fn outcome(&self) -> Outcome {
        match self {
            Self::Failed(_) => Outcome::Failed,
            Self::Broke(_) => Outcome::Trapped,
            Self::TimedOut => Outcome::TimedOut,
            Self::Busy => Outcome::Busy,
            Self::Quarantined(_) => Outcome::Quarantined,
        }
    }
}

const fn kind(kind: FailureKind) -> PluginErrorKind {
    match kind {
        FailureKind::InvalidConfig => PluginErrorKind::InvalidConfig,
        FailureKind::Denied => PluginErrorKind::Denied,
        FailureKind::NotFound => PluginErrorKind::NotFound,
        FailureKind::Conflict => PluginErrorKind::Conflict,
        FailureKind::RateLimited => PluginErrorKind::RateLimited,
        FailureKind::Unavailable => PluginErrorKind::Unavailable,
        FailureKind::Timeout => PluginErrorKind::Timeout,
        FailureKind::InvalidInput | FailureKind::Unsupported | FailureKind::Other => {
            PluginErrorKind::Other
        }
    }
}

/// For whoever calls it without asking whether the plugin can.
const NO_BATCH: &str = "the plugin ends one credential at a time";

/// The same.
const NO_ROTATION: &str = "the plugin does not replace root credentials: change this one by hand";

/// What one host call may carry from the guest: well above the largest statement.
const HOSTCALL_BYTES_MAX: usize = 1024 * 1024;

/// Host calls end this part of the call's time before the call does, so that the guest can turn
/// the host's `timeout` into an answer of its own.
const ANSWER_SHARE: u32 = 20;
