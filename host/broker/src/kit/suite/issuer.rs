//! The broker as an issuer of tokens for the length of the suite: one key, made in memory, and a
//! page on a loopback port. No journal.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use claviger_core::time::Timestamp;
use tokio::net::TcpListener;

use crate::issuer::Issuer;
use crate::issuer::page::Page;

/// Serves the page for as long as the runtime lives.
pub async fn start() -> anyhow::Result<Arc<Issuer>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no issuer")?;
    let issuer = Issuer::new(&format!("http://{}", listener.local_addr()?), ROTATE_EVERY)?;
    issuer.take_passing_key(Timestamp::from(SystemTime::now()))?;
    let issuer = Arc::new(issuer);
    tokio::spawn(Page::on_loopback(listener, Arc::clone(&issuer)).serve());
    Ok(issuer)
}

/// Longer than any suite: the one key is never replaced.
const ROTATE_EVERY: Duration = Duration::from_hours(24);
