//! Calls `claviger:batch`, the ability to end several credentials at once. Most plugins lack it.

use wasmtime::component::Resource;
use wasmtime::{Result, Store};

use super::Batch;
use crate::egress::Failure;
use crate::plugin::call::Call;
use crate::plugin::request::RevokeRequest;

/// Calls `revoke-all`.
pub async fn revoke_all(
    store: &mut Store<Call>,
    plugin: &Batch,
    requests: Vec<RevokeRequest>,
) -> Result<Result<(), Failure>> {
    let table = &mut store.data_mut().table;
    let given = requests.into_iter().map(|request| table.push(request));
    let given: Vec<Resource<RevokeRequest>> = given.collect::<Result<_, _>>()?;
    let revocation = plugin.claviger_batch_revocation();
    let answer = revocation.call_revoke_all(&mut *store, &given).await?;
    Ok(answer.map_err(Failure::from))
}
