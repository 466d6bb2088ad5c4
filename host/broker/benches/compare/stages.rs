//! Where the time of one issue goes, with one in flight: what the caller saw, and of it what the
//! broker's own metrics account for.

use anyhow::{Context, Result};
use claviger_bench::load::closed;
use claviger_bench::report::Stage;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::Bench;
use crate::claviger::{Claviger, Wanted};

/// Issues for a while and splits the mean time of one.
pub async fn measure(bench: &mut Bench, claviger: &Claviger) -> Result<()> {
    let agents = claviger.agents(1, Wanted::Token).await?;
    let before = Sums::read(claviger.metrics_port()).await?;
    let (agents, tally) = closed(agents, bench.effort.spell()).await?;
    let after = Sums::read(claviger.metrics_port()).await?;
    claviger.end(agents).await?;
    let issues = after.calls - before.calls;
    let commits = (after.commit_secs - before.commit_secs) / issues * 1e6;
    let call = (after.call_secs - before.call_secs) / issues * 1e6;
    let rest = (tally.mean_micros() - commits - call).max(0.0);
    for (name, micros) in [
        ("durable commits: the intent before the call, the lease after it", commits),
        ("the plugin's call in a new sandbox, with the signature", call),
        ("gRPC, session, decision, and handing over between threads", rest),
    ] {
        bench.stage(Stage { name: name.to_owned(), mean_us: micros });
    }
    Ok(())
}

/// Sums of the broker's histograms.
struct Sums {
    commit_secs: f64,
    call_secs: f64,
    calls: f64,
}

impl Sums {
    async fn read(port: u16) -> Result<Self> {
        let page = page(port).await?;
        Ok(Self {
            commit_secs: sum(&page, "claviger_journal_commit_seconds_sum"),
            call_secs: sum(&page, "claviger_plugin_call_seconds_sum"),
            calls: sum(&page, "claviger_plugin_call_seconds_count"),
        })
    }
}

/// The sum of the samples of `name` on the broker's page of metrics.
pub async fn metric(port: u16, name: &str) -> Result<f64> {
    Ok(sum(&page(port).await?, name))
}

fn sum(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn page(port: u16) -> Result<String> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/metrics").header("host", "localhost");
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
    let body = response.into_body().collect().await?.to_bytes();
    String::from_utf8(body.to_vec()).context("metrics are text")
}
