//! What costs more as something grows: one chart for each pair of the two.

use super::axis::Axis;
use super::chart::{Chart, Dot, Line, Size};
use super::figures::{Measure, short};
use super::html::{Table, figure, section};
use super::sides::OURS;
use crate::report::{Growth, Report};

/// The section, or nothing where there are no growths.
pub fn write(report: &Report) -> String {
    if report.growths.is_empty() {
        return String::new();
    }
    let charts: String = report.growths.iter().map(one).collect();
    section(
        "Growth: what Claviger needs as it holds more",
        "Lower is better, and a flat line is best: then more of it costs nothing. To the right \
         every step is a multiple, so a cost that rises in proportion bends upwards; the height \
         begins at zero.",
        &format!("<div class=\"pairs\">{charts}</div>"),
    )
}

fn one(growth: &Growth) -> String {
    let title = format!("{}, by {}", growth.measure, growth.of);
    let mut points = growth.points.clone();
    points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let (counts, costs): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    let highest = costs.iter().copied().filter(|cost| cost.is_finite()).fold(0.0, f64::max);
    let measure = Measure::of(&growth.unit, highest);
    let last = costs.iter().rfind(|cost| cost.is_finite());
    let dot = |(count, cost): &(f64, f64)| Dot {
        x: *count,
        y: *cost,
        band: None,
        hover: format!("{} {}: {}", short(*count), growth.of, measure.full(*cost)),
    };
    let line = Line {
        name: last.map_or_else(String::new, |cost| measure.full(*cost)),
        ending: String::new(),
        classes: OURS.to_owned(),
        dots: points.iter().map(dot).collect(),
    };
    let chart = Chart {
        title: title.clone(),
        size: Size::Half,
        x: Axis::counts(&growth.of, &counts),
        y: Axis::from_zero(&format!("{} (lower is better)", growth.measure), &growth.unit, &costs),
        lines: vec![line],
    };
    let row = |(count, cost): &(f64, f64)| vec![short(*count), measure.full(*cost)];
    let table = Table { heads: vec!["How many", "Needs"], rows: points.iter().map(row).collect() };
    figure(&title, &chart.draw(), &table)
}
