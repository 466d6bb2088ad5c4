//! Where the time of one request goes: its stages one under the other, each beginning where the one
//! before ends. Says nothing of how the request as a whole is spread.

use super::figures::{Measure, NONE, time};
use super::html::{escape, section, shortened};
use super::sides::OURS;
use crate::report::{Report, Stage};

/// The section, or nothing where there are no stages.
pub fn write(report: &Report) -> String {
    if report.stages.is_empty() {
        return String::new();
    }
    let total = report.stages.iter().map(|stage| known(stage.mean_us)).sum::<f64>();
    let mut before_us = 0.0;
    let mut rows = String::new();
    for (index, stage) in report.stages.iter().enumerate() {
        rows += &row(stage, &Place { index, before_us, total_us: total });
        before_us += known(stage.mean_us);
    }
    let y = HEAD_HEIGHT + report.stages.len() as f64 * ROW_HEIGHT;
    let height = y + ROW_HEIGHT + 8.0;
    let chart = format!(
        "<figure><svg viewBox=\"0 0 960 {height}\" width=\"960\" height=\"{height}\" role=\"img\" \
         aria-label=\"The stages of one request\">\n{}{rows}\
         <line class=\"grid\" x1=\"0\" x2=\"960\" y1=\"{:.1}\" y2=\"{:.1}\"/>\n{}</svg></figure>",
        columns(14.0, &["stage", "mean", "share"], "axis"),
        y + 4.0,
        y + 4.0,
        columns(y + 25.0, &["all stages, one after the other", &time(total), "100 %"], "total"),
    );
    section(
        "Stages: where the time of one request to Claviger goes",
        "Shorter is better. One request at a time. Read from the top: each stage begins where the \
         one above it ends; together they are the mean time of a whole request.",
        &chart,
    )
}

/// Where a stage stands among the others.
struct Place {
    index: usize,
    before_us: f64,
    total_us: f64,
}

fn row(stage: &Stage, place: &Place) -> String {
    let top = HEAD_HEIGHT + place.index as f64 * ROW_HEIGHT;
    let px = |us: f64| if place.total_us > 0.0 { us / place.total_us * BAR_WIDTH } else { 0.0 };
    let mean = known(stage.mean_us);
    let share = if stage.mean_us.is_finite() && place.total_us > 0.0 {
        format!("{:.1} %", mean / place.total_us * 100.0)
    } else {
        NONE.to_owned()
    };
    let cells =
        [stage.name.as_str(), &Measure::of("µs", stage.mean_us).full(stage.mean_us), &share];
    format!(
        "<rect class=\"lane\" x=\"{BAR_LEFT}\" y=\"{:.1}\" width=\"{BAR_WIDTH}\" height=\"20\"/>\
         <rect class=\"stage {OURS}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"20\">\
         <title>{}</title></rect>\n{}",
        top + 4.0,
        BAR_LEFT + px(place.before_us),
        top + 4.0,
        px(mean).max(1.5),
        escape(&stage.name),
        columns(top + 19.0, &cells, "cell")
    )
}

/// One line of text: the name to the left of the bars, the figures to the right of them.
fn columns(y: f64, cells: &[&str; 3], class: &str) -> String {
    let places = [(0.0, "start"), (860.0, "end"), (955.0, "end")];
    let cell = |(text, (x, anchor)): (&&str, (f64, &str))| {
        let short = escape(&shortened(text, NAME_CHARS_MAX));
        format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{short}\
             <title>{}</title></text>\n",
            escape(text)
        )
    };
    cells.iter().zip(places).map(cell).collect()
}

/// A stage without a figure takes no room among the others.
fn known(us: f64) -> f64 {
    if us.is_finite() { us.max(0.0) } else { 0.0 }
}

const HEAD_HEIGHT: f64 = 22.0;
const ROW_HEIGHT: f64 = 28.0;
const BAR_LEFT: f64 = 380.0;
const BAR_WIDTH: f64 = 390.0;

/// How much of a name fits to the left of the bars.
const NAME_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::{BAR_LEFT, BAR_WIDTH, write};
    use crate::page::sample;
    use crate::report::{Report, Stage};

    fn drawn(medians_us: &[f64]) -> String {
        let stage = |mean_us: &f64| Stage { name: "a".to_owned(), mean_us: *mean_us };
        let stages = medians_us.iter().map(stage).collect();
        write(&Report { stages, ..sample::report() })
    }

    #[test]
    fn each_stage_begins_where_the_one_before_ends() {
        let drawn = drawn(&[100.0, 300.0]);
        let quarter = BAR_WIDTH / 4.0;
        for expect in [
            format!("x=\"{BAR_LEFT:.1}\" y=\"26.0\" width=\"{quarter:.1}\""),
            format!("x=\"{:.1}\" y=\"54.0\" width=\"{:.1}\"", BAR_LEFT + quarter, 3.0 * quarter),
            "400 µs".to_owned(),
        ] {
            assert!(drawn.contains(&expect), "`{expect}` is missing in {drawn}");
        }
    }

    #[test]
    fn a_stage_without_a_figure_takes_no_room_from_the_others() {
        let drawn = drawn(&[100.0, f64::NAN, 300.0, f64::INFINITY]);
        let rest = format!("width=\"{:.1}\"", BAR_WIDTH * 0.75);
        assert!(drawn.contains(&rest) && drawn.contains("400 µs"), "{drawn}");
    }
}
