//! The limit: the same component on wasmtime alone, without the broker. What a component imports
//! and does not call is linked to traps.

use anyhow::{Context as _, Result, anyhow};
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker, Resource,
    ResourceType, TypedFunc,
};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreContextMut,
};

/// A component that can be instantiated.
pub struct Raw {
    engine: Engine,
    pre: InstancePre<()>,
    revoke: ComponentExportIndex,
    check: ComponentExportIndex,
}

/// An instance that is kept.
pub struct Kept {
    store: Store<()>,
    revoke: TypedFunc<(Resource<Asked>,), (Result<(), Refusal>,)>,
    check: TypedFunc<(String,), (Vec<Problem>,)>,
}

/// The request to revoke: always the same.
pub struct Asked;

/// The contract's `error`.
#[expect(dead_code, reason = "the contract wants it whole; shown is its message")]
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub struct Refusal {
    kind: Kind,
    code: Option<String>,
    message: String,
    #[component(name = "request-sent")]
    request_sent: bool,
    #[component(name = "retry-after-ms")]
    retry_after_ms: Option<u64>,
}

/// The contract's `error-kind`.
#[expect(dead_code, reason = "only components make them")]
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
pub enum Kind {
    #[component(name = "invalid-config")]
    InvalidConfig,
    #[component(name = "invalid-input")]
    InvalidInput,
    #[component(name = "denied")]
    Denied,
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "conflict")]
    Conflict,
    #[component(name = "rate-limited")]
    RateLimited,
    #[component(name = "unavailable")]
    Unavailable,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "unsupported")]
    Unsupported,
    #[component(name = "other")]
    Other,
}

/// The contract's `problem`.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub struct Problem {
    pointer: String,
    message: String,
}

/// wasmtime as it comes, with instances from a pool.
pub fn pooling() -> Result<Engine> {
    let pool = PoolingAllocationConfig::new();
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(told)
}

/// wasmtime as it comes, with memory mapped anew for each instance.
pub fn on_demand() -> Result<Engine> {
    Engine::new(&Config::new()).map_err(told)
}

impl Raw {
    /// `wasm`, compiled for `engine`.
    pub fn new(engine: &Engine, wasm: &[u8]) -> Result<Self> {
        let component = Component::new(engine, wasm).map_err(told)?;
        let provider = component.get_export_index(None, PROVIDER);
        let export = |name: &str| {
            let index = component.get_export_index(provider.as_ref(), name);
            index.with_context(|| format!("the component exports no `{name}`"))
        };
        let (revoke, check) = (export("revoke")?, export("validate-config")?);
        let mut linker = Linker::new(engine);
        link(&mut linker)
            .and_then(|()| linker.define_unknown_imports_as_traps(&component))
            .map_err(told)?;
        let pre = linker.instantiate_pre(&component).map_err(told)?;
        Ok(Self { engine: engine.clone(), pre, revoke, check })
    }

    /// A new instance.
    pub fn instance(&self) -> Result<Kept> {
        let mut store = self.store();
        let instance = self.pre.instantiate(&mut store).map_err(told)?;
        let revoke = instance.get_typed_func(&mut store, self.revoke).map_err(told)?;
        let check = instance.get_typed_func(&mut store, self.check).map_err(told)?;
        Ok(Kept { store, revoke, check })
    }

    /// A new instance that serves one call of `revoke`, on a stack of its own as a guest that
    /// must be able to wait needs one.
    pub async fn revoke_on_fiber(&self) -> Result<()> {
        let mut store = self.store();
        let instance = self.pre.instantiate_async(&mut store).await.map_err(told)?;
        let revoke: TypedFunc<(Resource<Asked>,), (Result<(), Refusal>,)> =
            instance.get_typed_func(&mut store, self.revoke).map_err(told)?;
        let answer = revoke.call_async(&mut store, (Resource::new_borrow(REP),)).await;
        answered(answer.map_err(told)?)
    }

    fn store(&self) -> Store<()> {
        let mut store = Store::new(&self.engine, ());
        // Counts only on an engine with epochs; there, never reached.
        store.set_epoch_deadline(EPOCHS);
        store
    }
}

impl Kept {
    /// Calls `revoke`.
    pub fn revoke(&mut self) -> Result<()> {
        let asked = Resource::new_borrow(REP);
        answered(self.revoke.call(&mut self.store, (asked,)).map_err(told)?)
    }

    /// Calls `validate-config` of an empty configuration.
    pub fn check(&mut self) -> Result<()> {
        let config = r#"{"settings":{},"scopes":{}}"#.to_owned();
        let (problems,) = self.check.call(&mut self.store, (config,)).map_err(told)?;
        match problems.first() {
            None => Ok(()),
            Some(problem) => Err(anyhow!("{}: {}", problem.pointer, problem.message)),
        }
    }
}

fn answered((answer,): (Result<(), Refusal>,)) -> Result<()> {
    answer.map_err(|refusal| anyhow!("the plugin refused: {}", refusal.message))
}

/// What `revoke` asks the host.
fn link(linker: &mut Linker<()>) -> wasmtime::Result<()> {
    let mut calls = linker.instance(CALLS)?;
    calls.resource("revoke-request", ResourceType::host::<Asked>(), |_, _| Ok(()))?;
    for (getter, value) in [
        ("[method]revoke-request.intent", "01k6x0000000000000000000aa"),
        ("[method]revoke-request.scope", "backend/trial"),
        ("[method]revoke-request.settings", "{}"),
    ] {
        calls.func_wrap(getter, move |_: StoreContextMut<'_, ()>, (_,): (Resource<Asked>,)| {
            Ok((value.to_owned(),))
        })?;
    }
    calls.func_wrap(
        "[method]revoke-request.lease-handle",
        |_: StoreContextMut<'_, ()>, (_,): (Resource<Asked>,)| Ok((None::<String>,)),
    )?;
    calls.func_wrap(
        "[method]revoke-request.now",
        |_: StoreContextMut<'_, ()>, (_,): (Resource<Asked>,)| Ok((1_795_000_000_u64,)),
    )
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes it so")]
fn told(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

const PROVIDER: &str = "claviger:provider/provider@0.1.0";
const CALLS: &str = "claviger:provider/calls@0.1.0";

/// The host's name for the one request.
const REP: u32 = 1;

/// At a hundred a second, more than any run.
const EPOCHS: u64 = 1 << 40;
