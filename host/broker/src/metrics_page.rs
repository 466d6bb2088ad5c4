//! Serves the metrics over plain HTTP, for Prometheus on this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::broker::Broker;

/// Listens on `address` and returns the task that serves `/metrics` there.
pub async fn bind(
    address: SocketAddr,
    broker: Arc<Broker>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    anyhow::ensure!(
        address.ip().is_loopback(),
        "`metrics.address` is `{address}`, but metrics are served in the clear: use a loopback address"
    );
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on `{address}` for metrics"))?;
    let router = Router::new().route("/metrics", get(page)).with_state(broker);
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics page failed");
        }
    })
}

async fn page(State(broker): State<Arc<Broker>>) -> Response {
    match broker.metrics.text(&broker) {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
