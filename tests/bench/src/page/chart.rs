//! Draws lines over two axes as SVG: grid, bands, lines, dots, and a label at the end of each line.
//! Knows nothing of benches, and no colours.

use super::axis::{Axis, Tick};
use super::html::{escape, shortened};

/// A chart before it is drawn.
pub struct Chart {
    /// What somebody hears who does not see it.
    pub title: String,
    /// How much of the page it takes.
    pub size: Size,
    /// What runs to the right.
    pub x: Axis,
    /// What runs upwards.
    pub y: Axis,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// How much of the page a chart takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The whole width.
    Full,
    /// Half of the width, so that two stand side by side.
    Half,
}

/// One line of a chart.
pub struct Line {
    /// What it is called, at its end.
    pub name: String,
    /// What is written under the name.
    pub ending: String,
    /// Its classes in `style.css`.
    pub classes: String,
    /// What it connects.
    pub dots: Vec<Dot>,
}

/// One measured point, in the figures of the axes.
pub struct Dot {
    /// Along the x axis.
    pub x: f64,
    /// Along the y axis.
    pub y: f64,
    /// The lowest and the highest round, where there were several.
    pub band: Option<(f64, f64)>,
    /// What a pointer over it shows.
    pub hover: String,
}

impl Chart {
    /// The chart as one `<svg>` element, or a sentence where no figure can be drawn.
    pub fn draw(&self) -> String {
        let frame = Frame::of(self);
        let lines: Vec<PlacedLine<'_>> =
            self.lines.iter().map(|line| self.place(line, &frame)).collect();
        if lines.iter().all(|line| line.runs.is_empty()) {
            return "<p class=\"lead\">No figure here can be drawn.</p>".to_owned();
        }
        let body: String = [PlacedLine::band, PlacedLine::stroke, PlacedLine::dots]
            .iter()
            .flat_map(|layer| lines.iter().map(layer))
            .collect();
        let (width, height) = (frame.width, frame.height);
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\" aria-label=\"{}\">\n{}{}{body}{}</svg>",
            escape(&self.title),
            y_axis(&self.y, &frame),
            x_axis(&self.x, &frame),
            labels(&lines, &frame)
        )
    }

    fn place<'a>(&self, line: &'a Line, frame: &Frame) -> PlacedLine<'a> {
        let place = |dot: &'a Dot| {
            let x = frame.x(self.x.share(dot.x)?);
            let y = frame.y(self.y.share(dot.y)?);
            let band = dot.band.and_then(|(low, high)| {
                Some((frame.y(self.y.share(low)?), frame.y(self.y.share(high)?)))
            });
            Some(Placed { x, y, band: band.unwrap_or((y, y)), hover: &dot.hover })
        };
        let placed: Vec<Option<Placed<'a>>> = line.dots.iter().map(place).collect();
        let runs = placed.split(Option::is_none).filter(|run| !run.is_empty());
        let runs = runs.map(|run| run.iter().flatten().copied().collect()).collect();
        PlacedLine { line, runs }
    }
}

/// Where the plot stands in its picture, in px.
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// How many characters of a name fit beside the plot.
    name_chars_max: usize,
}

impl Frame {
    fn of(chart: &Chart) -> Self {
        let (width, height, name_chars_max) = match chart.size {
            Size::Full => (960.0, 330.0, 32),
            Size::Half => (470.0, 300.0, 18),
        };
        let beside = |line: &Line| {
            let name = line.name.chars().count().min(name_chars_max) as f64 * BOLD_CHAR_WIDTH;
            name.max(line.ending.chars().count() as f64 * CHAR_WIDTH)
        };
        let label = chart.lines.iter().map(beside).fold(0.0, f64::max);
        let tick = chart.y.ticks.iter().map(|tick| tick.label.chars().count()).max();
        Self {
            width,
            height,
            left: tick.unwrap_or(0) as f64 * CHAR_WIDTH + 12.0,
            right: width - label - LABEL_GAP - 4.0,
            top: 34.0,
            bottom: height - 46.0,
            name_chars_max,
        }
    }

    fn x(&self, share: f64) -> f64 {
        self.left + share * (self.right - self.left)
    }

    fn y(&self, share: f64) -> f64 {
        self.bottom - share * (self.bottom - self.top)
    }
}

/// A dot in px.
#[derive(Clone, Copy)]
struct Placed<'a> {
    x: f64,
    y: f64,
    band: (f64, f64),
    hover: &'a str,
}

/// A line in px. It is broken where a figure is missing, so that nothing looks measured that was
/// not.
struct PlacedLine<'a> {
    line: &'a Line,
    runs: Vec<Vec<Placed<'a>>>,
}

impl<'a> PlacedLine<'a> {
    /// The dot its label belongs to.
    fn end(&self) -> Option<Placed<'a>> {
        self.runs.last().and_then(|run| run.last().copied())
    }

    fn band(&self) -> String {
        let draw = |run: &Vec<Placed<'_>>| {
            let lower = run.iter().map(|dot| (dot.x, dot.band.0));
            let upper = run.iter().rev().map(|dot| (dot.x, dot.band.1));
            let points = lower.chain(upper).map(|(x, y)| format!("{x:.1},{y:.1}"));
            let points = points.collect::<Vec<_>>().join(" ");
            format!("<polygon class=\"band {}\" points=\"{points}\"/>\n", self.line.classes)
        };
        let has_width = |run: &&Vec<Placed<'_>>| run.iter().any(|dot| dot.band.0 != dot.band.1);
        self.runs.iter().filter(has_width).map(draw).collect()
    }

    fn stroke(&self) -> String {
        let draw = |run: &Vec<Placed<'_>>| {
            let points = run.iter().map(|dot| format!("{:.1},{:.1}", dot.x, dot.y));
            let points = points.collect::<Vec<_>>().join(" ");
            format!("<polyline class=\"line {}\" points=\"{points}\"/>\n", self.line.classes)
        };
        self.runs.iter().map(draw).collect()
    }

    fn dots(&self) -> String {
        let draw = |dot: &Placed<'_>| {
            format!(
                "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\">\
                 <title>{}</title></circle>\n",
                self.line.classes,
                dot.x,
                dot.y,
                escape(dot.hover)
            )
        };
        self.runs.iter().flatten().map(draw).collect()
    }
}

fn y_axis(axis: &Axis, frame: &Frame) -> String {
    let mark = |tick: &Tick| {
        let y = frame.y(axis.share(tick.figure)?);
        Some(format!(
            "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            frame.left,
            frame.right,
            frame.left - 8.0,
            y + 4.0,
            escape(&tick.label)
        ))
    };
    let title = format!("<text class=\"axis\" x=\"0\" y=\"14\">{}</text>\n", escape(&axis.title));
    title + &axis.ticks.iter().filter_map(mark).collect::<String>()
}

fn x_axis(axis: &Axis, frame: &Frame) -> String {
    let mut drawn = String::new();
    let mut taken_to = f64::NEG_INFINITY;
    for tick in &axis.ticks {
        let Some(share) = axis.share(tick.figure) else { continue };
        let x = frame.x(share);
        let (top, bottom) = (frame.bottom, frame.bottom + 5.0);
        drawn += &format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" \
             y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>\n"
        );
        // A label without room beside its neighbour is left out; its mark stays.
        let half = tick.label.chars().count() as f64 * CHAR_WIDTH / 2.0;
        if x - half > taken_to {
            taken_to = x + half;
            drawn += &format!(
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                frame.bottom + 20.0,
                escape(&tick.label)
            );
        }
    }
    drawn += &format!(
        "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
        (frame.left + frame.right) / 2.0,
        frame.height - 6.0,
        escape(&axis.title)
    );
    drawn
}

/// The labels at the ends of the lines, moved apart where lines end close to each other.
fn labels(lines: &[PlacedLine<'_>], frame: &Frame) -> String {
    let mut ends: Vec<(&Line, Placed<'_>)> =
        lines.iter().filter_map(|line| Some((line.line, line.end()?))).collect();
    ends.sort_by(|(_, one), (_, other)| one.y.total_cmp(&other.y));
    let wanted: Vec<f64> = ends.iter().map(|(_, dot)| dot.y).collect();
    let heights = apart(&wanted, frame.top + 4.0, frame.bottom - 8.0);
    let draw = |((line, dot), y): ((&Line, Placed<'_>), f64)| {
        let x = frame.right + LABEL_GAP;
        format!(
            "<line class=\"leader {0}\" x1=\"{1:.1}\" y1=\"{2:.1}\" x2=\"{3:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"name {0}\" x=\"{x:.1}\" y=\"{4:.1}\">{5}<title>{6}</title></text>\
             <text class=\"ending\" x=\"{x:.1}\" y=\"{7:.1}\">{8}</text>\n",
            line.classes,
            dot.x + 6.0,
            dot.y,
            x - 4.0,
            y + 1.0,
            escape(&shortened(&line.name, frame.name_chars_max)),
            escape(&line.name),
            y + 16.0,
            escape(&line.ending)
        )
    };
    ends.into_iter().zip(heights).map(draw).collect()
}

/// Heights as close to the wanted ones, which are in order, as they can be without overlap: first
/// down from each other, then back up from the bottom.
fn apart(wanted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut heights: Vec<f64> = Vec::with_capacity(wanted.len());
    let mut free_from = top;
    for height in wanted {
        let height = height.max(free_from);
        free_from = height + LABEL_HEIGHT;
        heights.push(height);
    }
    let mut free_to = bottom;
    for height in heights.iter_mut().rev() {
        *height = height.min(free_to);
        free_to = *height - LABEL_HEIGHT;
    }
    heights
}

/// How wide a character is in the widest font the page may get (DejaVu Sans), in px. Less, and
/// names are cut off by the edge of the picture; more, and the plot gets narrow.
const CHAR_WIDTH: f64 = 7.6;

/// The same for names, which are larger and bold.
const BOLD_CHAR_WIDTH: f64 = 9.2;

/// The room between the end of a line and its label, in px: enough for a leader to be seen.
const LABEL_GAP: f64 = 22.0;

/// What the two lines of a label need, in px.
const LABEL_HEIGHT: f64 = 33.0;

#[cfg(test)]
mod tests {
    use super::{Chart, Dot, LABEL_HEIGHT, Line, Size, apart};
    use crate::page::axis::Axis;

    fn chart(figures: &[f64]) -> Chart {
        let dot = |(index, y): (usize, &f64)| Dot {
            x: index as f64 + 1.0,
            y: *y,
            band: Some((*y, y * 1.1)),
            hover: String::new(),
        };
        let line = Line {
            name: "a < b".to_owned(),
            ending: "1/s".to_owned(),
            classes: "tone-0".to_owned(),
            dots: figures.iter().enumerate().map(dot).collect(),
        };
        let xs: Vec<f64> = line.dots.iter().map(|dot| dot.x).collect();
        Chart {
            title: "a < b".to_owned(),
            size: Size::Half,
            x: Axis::counts("x", &xs),
            y: Axis::from_zero("y", "", figures),
            lines: vec![line],
        }
    }

    #[test]
    fn a_line_is_broken_where_a_figure_is_missing() {
        let drawn = chart(&[1.0, 2.0, f64::NAN, 3.0, 4.0]).draw();
        assert_eq!(drawn.matches("<polyline").count(), 2);
        assert_eq!(drawn.matches("<circle").count(), 4);
        assert!(!drawn.contains("NaN") && !drawn.contains("a < b"), "{drawn}");
    }

    #[test]
    fn a_chart_without_a_figure_says_so() {
        assert!(!chart(&[f64::NAN, f64::INFINITY]).draw().contains("<svg"));
        assert!(chart(&[1.0]).draw().contains("<svg"));
    }

    #[test]
    fn labels_never_overlap_and_stay_in_the_picture() {
        let heights = apart(&[50.0, 51.0, 199.0, 200.0, 200.0], 10.0, 200.0);
        for pair in heights.windows(2) {
            assert!(pair[1] - pair[0] >= LABEL_HEIGHT - 1e-9, "{heights:?}");
        }
        assert!(heights.iter().all(|height| *height <= 200.0), "{heights:?}");
        assert_eq!(apart(&[20.0, 90.0], 10.0, 200.0), [20.0, 90.0]);
    }
}
