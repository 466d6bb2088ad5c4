//! Throughput against concurrency: one chart for each workload, one line for each side.

use super::axis::Axis;
use super::chart::{Chart, Dot, Line, Size};
use super::figures::{Measure, range, time};
use super::html::{Table, figure, section};
use super::sides::Sides;
use crate::report::{Curve, Point, Report};

/// The section, or nothing where there are no curves.
pub fn write(report: &Report, sides: &Sides) -> String {
    let mut workloads: Vec<&str> = Vec::new();
    for curve in &report.curves {
        if !workloads.contains(&curve.workload.as_str()) {
            workloads.push(&curve.workload);
        }
    }
    if workloads.is_empty() {
        return String::new();
    }
    let charts = workloads.into_iter().map(|workload| {
        let of_it = report.curves.iter().filter(|curve| curve.workload == workload);
        let curves: Vec<&Curve> = of_it.collect();
        figure(workload, &chart(workload, &curves, sides).draw(), &table(&curves))
    });
    section(
        "Throughput: how much gets done per second as more clients ask at once",
        "Higher is better. A line connects the medians of the rounds; the band round it reaches \
         from the lowest round to the highest. To the right, every doubling of the clients takes \
         the same room.",
        &charts.collect::<String>(),
    )
}

fn chart(workload: &str, curves: &[&Curve], sides: &Sides) -> Chart {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let clients: Vec<f64> = points().map(|point| point.clients as f64).collect();
    let per_sec: Vec<f64> =
        points().flat_map(|point| [point.per_sec.median, point.per_sec.max]).collect();
    Chart {
        title: format!("Throughput of {workload}"),
        size: Size::Full,
        x: Axis::counts("clients at once", &clients),
        y: Axis::from_zero("per second (higher is better)", "", &per_sec),
        lines: curves.iter().map(|curve| line(curve, sides)).collect(),
    }
}

fn line(curve: &Curve, sides: &Sides) -> Line {
    let mut points: Vec<&Point> = curve.points.iter().collect();
    points.sort_by_key(|point| point.clients);
    let last = points.iter().rfind(|point| point.per_sec.median.is_finite());
    let dot = |point: &&Point| {
        let Point { clients, per_sec, p50_us, p99_us } = point;
        Dot {
            x: *clients as f64,
            y: per_sec.median,
            band: Some((per_sec.min, per_sec.max)),
            hover: format!(
                "{}, {clients} clients: {} (50 % within {}, 99 % within {})",
                curve.side,
                per_second(per_sec.median),
                time(*p50_us),
                time(*p99_us)
            ),
        }
    };
    Line {
        name: curve.side.clone(),
        ending: last.map_or_else(String::new, |point| per_second(point.per_sec.median)),
        classes: sides.classes(&curve.side),
        dots: points.iter().map(dot).collect(),
    }
}

fn table(curves: &[&Curve]) -> Table {
    let row = |curve: &Curve, point: &Point| {
        vec![
            curve.side.clone(),
            point.clients.to_string(),
            per_second(point.per_sec.median),
            range(&point.per_sec, &Measure::of("/s", point.per_sec.median)),
            time(point.p50_us),
            time(point.p99_us),
        ]
    };
    let rows =
        curves.iter().flat_map(|curve| curve.points.iter().map(move |point| row(curve, point)));
    Table {
        heads: vec!["Side", "Clients", "Median", "Lowest–highest", "50 % within", "99 % within"],
        rows: rows.collect(),
    }
}

fn per_second(figure: f64) -> String {
    Measure::of("/s", figure).full(figure)
}
