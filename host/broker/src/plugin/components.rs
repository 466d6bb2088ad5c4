//! From the bytes of a component to one that can run: out of the cache, or compiled and kept.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::artifact::Artifact;
use super::cache::{ComponentCache, Key};
use super::compile::{CompileError, Compiler};
use super::manifest::LimitsClass;

/// Where components come from.
pub struct Components {
    compiler: Compiler,
    cache: Option<ComponentCache>,
}

/// A component as it was admitted.
pub struct Source<'a> {
    /// Its bytes.
    pub wasm: &'a [u8],
    /// What they hash to.
    pub sha256: &'a [u8; 32],
    /// What compiling it may take.
    pub class: LimitsClass,
}

impl Components {
    /// Compiled by this program and kept in `cache`, if there is one.
    pub fn new(cache: Option<ComponentCache>) -> Self {
        Self { compiler: Compiler::of_this_program(), cache }
    }

    /// The component of `source`, ready for `engine`.
    pub(super) fn get(
        &self,
        engine: &Engine,
        source: &Source<'_>,
    ) -> Result<Component, CompileError> {
        let key = Key::of(source.sha256, engine);
        if let Some(component) = self.cached(engine, &key) {
            return Ok(component);
        }
        let artifact = self.compiler.compile(source.wasm, source.class)?;
        let component = load(engine, &artifact)?;
        if let Some(cache) = &self.cache {
            cache.put(&key, &artifact);
        }
        Ok(component)
    }

    /// Keeps of the cache what is in use.
    pub(super) fn tidy(&self) {
        if let Some(cache) = &self.cache {
            cache.evict_unused();
        }
    }

    fn cached(&self, engine: &Engine, key: &Key) -> Option<Component> {
        let cache = self.cache.as_ref()?;
        match load(engine, &cache.get(key)?) {
            Ok(component) => Some(component),
            Err(error) => {
                cache.discard(key, &error.to_string());
                None
            }
        }
    }
}

fn load(engine: &Engine, artifact: &Artifact) -> Result<Component, CompileError> {
    artifact.load(engine).map_err(|error| CompileError::Refused(format!("{error:#}")))
}
