//! How long single requests took: one chart for each workload and load, one line for each side.

use super::axis::Axis;
use super::chart::{Chart, Dot, Line, Size};
use super::figures::{quantile, time};
use super::html::{Table, figure, section};
use super::sides::Sides;
use crate::report::{Latency, Report};

/// The section, or nothing where there are no latencies.
pub fn write(report: &Report, sides: &Sides) -> String {
    let mut settings: Vec<(&str, &str)> = Vec::new();
    for latency in &report.latencies {
        if !settings.contains(&setting(latency)) {
            settings.push(setting(latency));
        }
    }
    if settings.is_empty() {
        return String::new();
    }
    let charts = settings.into_iter().map(|of_it| {
        let of_it = report.latencies.iter().filter(|latency| setting(latency) == of_it);
        one(&of_it.collect::<Vec<_>>(), sides)
    });
    section(
        "Latency: how long one request takes, up to the slowest ones",
        "Lower is better. At 99 % stands what 99 of 100 requests took at most; each further nine \
         is as wide as the one before. Upwards every step is a multiple, not a sum: look at the \
         marks.",
        &format!("<div class=\"pairs\">{}</div>", charts.collect::<String>()),
    )
}

fn setting(latency: &Latency) -> (&str, &str) {
    (&latency.workload, &latency.load)
}

fn one(latencies: &[&Latency], sides: &Sides) -> String {
    let title = latencies
        .first()
        .map_or_else(String::new, |latency| format!("{}, {}", latency.workload, latency.load));
    let quantiles = || latencies.iter().flat_map(|latency| &latency.quantiles);
    let shares: Vec<f64> = quantiles().map(|(share, _)| *share).collect();
    // What is not drawn, such as the slowest request of all, may not stretch the axis.
    let drawn = quantiles().filter(|(share, _)| (0.0..1.0).contains(share));
    let times: Vec<f64> = drawn.map(|(_, us)| *us).collect();
    let chart = Chart {
        title: format!("Latency of {title}"),
        size: Size::Half,
        x: Axis::quantiles("share of the requests that took at most this long", &shares),
        y: Axis::times("time of one request (lower is better)", &times),
        lines: latencies.iter().map(|latency| line(latency, sides)).collect(),
    };
    figure(&title, &chart.draw(), &table(latencies))
}

fn line(latency: &Latency, sides: &Sides) -> Line {
    let mut drawn: Vec<(f64, f64)> = latency.quantiles.clone();
    drawn.retain(|(share, _)| (0.0..1.0).contains(share));
    drawn.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let last = drawn.iter().rfind(|(_, us)| us.is_finite());
    let dot = |(share, us): &(f64, f64)| Dot {
        x: *share,
        y: *us,
        band: None,
        hover: format!(
            "{}: {} of the requests within {}",
            latency.side,
            quantile(*share),
            time(*us)
        ),
    };
    Line {
        name: latency.side.clone(),
        ending: last.map_or_else(String::new, |(_, us)| time(*us)),
        classes: sides.classes(&latency.side),
        dots: drawn.iter().map(dot).collect(),
    }
}

fn table(latencies: &[&Latency]) -> Table {
    let row = |latency: &Latency, (share, us): &(f64, f64)| {
        let share = if *share >= 1.0 { "all".to_owned() } else { quantile(*share) };
        vec![latency.side.clone(), share, time(*us)]
    };
    let rows = latencies
        .iter()
        .flat_map(|latency| latency.quantiles.iter().map(move |pair| row(latency, pair)));
    Table { heads: vec!["Side", "Share of the requests", "Took at most"], rows: rows.collect() }
}
