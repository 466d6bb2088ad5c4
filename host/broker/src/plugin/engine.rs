//! The one engine of the process: how components are compiled, how memory is pooled, who ticks.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, ModuleVersionStrategy,
    OptLevel, PoolingAllocationConfig, Strategy, WasmBacktraceDetails, WasmFeatures,
};

use super::components::Components;
use super::spec::Limits;

/// Where plugins run. One a process, kept over reloads: components never move between engines
/// (RUSTSEC-2026-0222).
pub struct Sandbox {
    pub(super) engine: Engine,
    pub(super) limits: Limits,
    pub(super) components: Components,
    turns: Arc<Semaphore>,
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Neither allocator could be set up.
    #[error("the sandbox cannot start: {0}")]
    Engine(String),
    /// The thread that interrupts loops could not start.
    #[error("the thread that ends endless loops cannot start: {0}")]
    Ticker(#[from] std::io::Error),
}

/// A call's right to run, given back when it is dropped.
pub(super) struct Turn {
    _of_plugin: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Sandbox {
    /// One that keeps no compiled component.
    #[cfg(test)]
    pub fn start(limits: Limits) -> Result<Arc<Self>, EngineError> {
        Self::start_with(limits, Components::new(None))
    }

    /// Sets up the engine and the thread that ends endless loops.
    pub fn start_with(limits: Limits, components: Components) -> Result<Arc<Self>, EngineError> {
        let engine = engine(&limits)?;
        tick(engine.weak())?;
        let turns = Arc::new(Semaphore::new(limits.calls_max.try_into().unwrap_or(usize::MAX)));
        Ok(Arc::new(Self { engine, limits, components, turns }))
    }

    /// Waits for a turn of a plugin with this share; `None` if none came in time. The pool has a
    /// slot for every turn, and would fail where this waits.
    pub(super) async fn turn(&self, share: &Arc<Semaphore>) -> Option<Turn> {
        let turn = async {
            let of_plugin = Arc::clone(share).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.turns).acquire_owned().await.ok()?;
            Some(Turn { _of_plugin: of_plugin, _of_all: of_all })
        };
        timeout(self.limits.wait_max, turn).await.ok()?
    }

    /// What one plugin may take of all turns: half, so that calls that wait for one dead upstream
    /// do not keep every other plugin waiting.
    pub(super) fn share(&self) -> Arc<Semaphore> {
        let half = self.limits.calls_max.div_ceil(2);
        Arc::new(Semaphore::new(half.try_into().unwrap_or(usize::MAX)))
    }
}

/// An engine that compiles for the sandbox's and runs nothing: it reserves no pool.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    config(InstanceAllocationStrategy::OnDemand).and_then(|config| Engine::new(&config))
}

/// Opens what the pool needs to give back only the pages that a call has written (`PAGEMAP_SCAN`,
/// Linux 6.7), and says whether it is there. To be called while the process may still open its own
/// `/proc/self/pagemap`, which stays open for the sandbox that starts later.
pub fn open_pagemap() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available()
}

fn engine(limits: &Limits) -> Result<Engine, EngineError> {
    let error = match pooled(limits) {
        Ok(engine) => {
            tracing::info!(pagemap_scan = open_pagemap(), "the sandbox has its memory");
            return Ok(engine);
        }
        Err(error) => error,
    };
    tracing::warn!(
        error = %error,
        "no address space for the instance pool: plugin calls will be about twice as slow"
    );
    config(InstanceAllocationStrategy::OnDemand)
        .and_then(|config| Engine::new(&config))
        .map_err(|error| EngineError::Engine(error.to_string()))
}

pub(super) fn pooled(limits: &Limits) -> wasmtime::Result<Engine> {
    config(InstanceAllocationStrategy::Pooling(pool(limits)))
        .and_then(|config| Engine::new(&config))
}

fn config(strategy: InstanceAllocationStrategy) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .allocation_strategy(strategy)
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(false)
        .async_stack_zeroing(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(HOST_STACK_BYTES)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .gc_support(false)
        .shared_memory(false);
    // What no plugin needs cannot be where the next fault is found.
    for feature in [
        WasmFeatures::THREADS,
        WasmFeatures::MEMORY64,
        WasmFeatures::MULTI_MEMORY,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::CM_ASYNC,
    ] {
        config.wasm_features(feature, false);
    }
    // A compiled artefact names the exact release: wasmtime itself compares only the major
    // number, and a compiler fix would never reach what was compiled before it.
    config.module_version(ModuleVersionStrategy::Custom(MODULE_VERSION.to_owned()))?;
    Ok(config)
}

fn pool(limits: &Limits) -> PoolingAllocationConfig {
    // A slot that was given back can be used again only after its batch was decommitted, and for
    // that moment it is nobody's: each thread may hold one batch so.
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let batches = u32::try_from(threads).unwrap_or(1).saturating_add(1);
    let slots = limits.calls_max.saturating_add(batches.saturating_mul(DECOMMIT_BATCH));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(4))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(2))
        .total_stacks(slots)
        .max_core_instances_per_component(16)
        .max_memories_per_component(2)
        .max_tables_per_component(4)
        .max_memory_size(limits.memory_bytes_max_of_any())
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .async_stack_keep_resident(STACK_KEEP_RESIDENT_BYTES)
        .max_unused_warm_slots(slots)
        .decommit_batch_size(DECOMMIT_BATCH as usize)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Advances the epoch until the engine is gone. A guest is asked to stop or to make way only
/// when the epoch advances.
fn tick(engine: EngineWeak) -> std::io::Result<()> {
    let ticker = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("claviger-epochs".into()).spawn(ticker).map(drop)
}

/// Must change when the wasmtime dependency does.
pub(super) const MODULE_VERSION: &str =
    concat!("wasmtime-48.0.8/claviger-", env!("CARGO_PKG_VERSION"));

/// wasmtime's default: deep recursion ends here, not in the host's stack.
const WASM_STACK_BYTES: usize = 512 * 1024;

/// wasmtime's default: what host functions may use on top of the guest's stack.
const HOST_STACK_BYTES: usize = 2 * 1024 * 1024;

/// wasmtime's default for a table; a plugin has a few hundred functions.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Freed slots are handed back to the system in batches: one interruption of the other processors
/// for sixteen calls.
const DECOMMIT_BATCH: u32 = 16;

/// Measured: keeping 64 KiB resident beat both 0 and 1 MiB.
const KEEP_RESIDENT_BYTES: usize = 64 * 1024;

/// What a call uses of its stack, host functions included, is less. Zeroing that much costs less than
/// taking the pages from the system anew.
const STACK_KEEP_RESIDENT_BYTES: usize = 32 * 1024;

/// A tenth of the guest's processor time: an overrun is noticed within one tick.
const TICK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_artefacts_name_the_wasmtime_in_use() {
        let lock = include_str!("../../../../Cargo.lock");
        let version = MODULE_VERSION.trim_start_matches("wasmtime-").split('/').next();
        let package = format!("name = \"wasmtime\"\nversion = \"{}\"", version.unwrap_or(""));
        assert!(lock.contains(&package), "MODULE_VERSION says {MODULE_VERSION}");
    }
}
