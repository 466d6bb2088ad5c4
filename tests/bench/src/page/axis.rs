//! Turns figures into places along an axis and picks its ticks. Draws nothing.

use super::figures::{Measure, quantile, short};

/// One axis of a chart.
pub struct Axis {
    /// What it shows.
    pub title: String,
    /// Where something is written beside it.
    pub ticks: Vec<Tick>,
    kind: Kind,
    start: f64,
    end: f64,
}

/// One mark beside an axis.
pub struct Tick {
    /// Where it stands.
    pub figure: f64,
    /// What it says.
    pub label: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Linear,
    Log,
    Quantile,
}

impl Axis {
    /// An axis from zero to a round number not below any of the figures.
    pub fn from_zero(title: &str, unit: &str, figures: &[f64]) -> Self {
        let highest =
            figures.iter().copied().filter(|figure| figure.is_finite()).fold(0.0, f64::max);
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let step = round_step(highest / STEPS_WANTED);
        let steps = (highest / step - 1e-9).ceil().max(1.0);
        let measure = Measure::of(unit, highest);
        let ticks = (0..=steps as usize).map(|index| {
            let figure = index as f64 * step;
            Tick { figure, label: measure.round(figure) }
        });
        Self {
            title: title.to_owned(),
            ticks: ticks.collect(),
            kind: Kind::Linear,
            start: 0.0,
            end: steps * step,
        }
    }

    /// A logarithmic axis of lengths of time in µs, from one round number to another.
    pub fn times(title: &str, us: &[f64]) -> Self {
        let (low, high) = bounds(us).unwrap_or((1.0, 10.0));
        let marks = round_numbers(low, high);
        let start = marks.iter().copied().rfind(|mark| *mark <= low * 1.001).unwrap_or(low);
        let end = marks.iter().copied().find(|mark| *mark >= high * 0.999 && *mark > start);
        let end = end.unwrap_or(start * 10.0);
        let decades_only = end / start > DECADES_ONLY_FROM;
        let shown = marks
            .into_iter()
            .filter(|mark| (start..=end).contains(mark) && (!decades_only || is_decade(*mark)));
        let tick = |figure| Tick { figure, label: Measure::of("µs", figure).round(figure) };
        let ticks = shown.map(tick).collect();
        Self { title: title.to_owned(), ticks, kind: Kind::Log, start, end }
    }

    /// A logarithmic axis that has a tick at each of the figures.
    pub fn counts(title: &str, figures: &[f64]) -> Self {
        let (start, end) = bounds(figures).unwrap_or((1.0, 10.0));
        // One figure alone stands in the middle.
        let (start, end) = if start < end { (start, end) } else { (start / 2.0, end * 2.0) };
        let mut marks: Vec<f64> =
            figures.iter().copied().filter(|figure| (start..=end).contains(figure)).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let tick = |figure| Tick { figure, label: short(figure) };
        let ticks = marks.into_iter().map(tick).collect();
        Self { title: title.to_owned(), ticks, kind: Kind::Log, start, end }
    }

    /// An axis on which each further nine takes as much room as the one before, because the slowest
    /// request of ten thousand matters as much as the middle one.
    pub fn quantiles(title: &str, shares: &[f64]) -> Self {
        let drawn = shares.iter().copied().filter(|share| (0.0..1.0).contains(share));
        let (low, high) = drawn
            .fold((0.5, 0.99), |(low, high): (f64, f64), share| (low.min(share), high.max(share)));
        let shown = QUANTILES.into_iter().filter(|share| (low..=high).contains(share));
        let ticks = shown.map(|figure| Tick { figure, label: quantile(figure) }).collect();
        Self { title: title.to_owned(), ticks, kind: Kind::Quantile, start: low, end: high }
    }

    /// How far along the axis a figure stands, from 0 to 1; nothing where it has no place on it.
    pub fn share(&self, figure: f64) -> Option<f64> {
        let start = self.kind.project(self.start);
        let share = (self.kind.project(figure) - start) / (self.kind.project(self.end) - start);
        // The ends of an axis may differ from its figures by the error of a floating point number.
        (-0.001..=1.001).contains(&share).then_some(share.clamp(0.0, 1.0))
    }
}

impl Kind {
    /// Where a figure stands on a line of equal steps. Not finite where it has no place.
    fn project(self, figure: f64) -> f64 {
        match self {
            Self::Linear => figure,
            Self::Log => figure.ln(),
            Self::Quantile => -(1.0 - figure).ln(),
        }
    }
}

/// The lowest and highest figure that a logarithm can show.
fn bounds(figures: &[f64]) -> Option<(f64, f64)> {
    let shown = figures.iter().copied().filter(|figure| figure.is_normal() && *figure > 0.0);
    shown.fold(None, |bounds, figure| {
        let (low, high) = bounds.unwrap_or((figure, figure));
        Some((low.min(figure), high.max(figure)))
    })
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below the figure.
fn round_step(figure: f64) -> f64 {
    let power = 10f64.powf(figure.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0].into_iter().map(|step| step * power);
    steps.into_iter().find(|step| *step >= figure * 0.999_999).unwrap_or(10.0 * power)
}

/// 1, 2 and 5 times the powers of ten round a range.
fn round_numbers(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().floor() as i32 + 1;
    powers.flat_map(|power| [1.0, 2.0, 5.0].map(|mark| mark * 10f64.powi(power))).collect()
}

fn is_decade(figure: f64) -> bool {
    (figure.log10() - figure.log10().round()).abs() < 1e-9
}

/// About how many steps an axis from zero has: fewer are hard to read off, more are a grid.
const STEPS_WANTED: f64 = 5.0;

/// From this ratio between the ends of an axis on, ticks at 2 and 5 are too close to each other.
const DECADES_ONLY_FROM: f64 = 500.0;

/// The quantiles that have a tick.
const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];

#[cfg(test)]
mod tests {
    use super::Axis;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn an_axis_from_zero_ends_at_a_round_number_above_all_figures() {
        let axis = Axis::from_zero("", "", &[3.0, 1405.0, f64::NAN]);
        assert_eq!(labels(&axis), ["0", "500", "1,000", "1,500"]);
        assert_eq!(axis.share(750.0), Some(0.5));
        let small = Axis::from_zero("", "µs", &[0.7]);
        assert_eq!(labels(&small), ["0 µs", "0.2 µs", "0.4 µs", "0.6 µs", "0.8 µs"]);
    }

    #[test]
    fn an_axis_of_times_has_round_ticks() {
        let axis = Axis::times("", &[120.0, 4100.0, f64::INFINITY, 0.0]);
        let expect = ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"];
        assert_eq!(labels(&axis), expect);
        let wide = Axis::times("", &[30.0, 900_000.0]);
        assert_eq!(labels(&wide), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
    }

    #[test]
    fn an_axis_of_counts_has_a_tick_at_each_and_equal_steps_between_doubles() {
        let axis = Axis::counts("", &[4.0, 1.0, 2.0, 2.0]);
        assert_eq!(labels(&axis), ["1", "2", "4"]);
        assert!((axis.share(2.0).unwrap() - 0.5).abs() < 1e-9);
        assert!((Axis::counts("", &[8.0]).share(8.0).unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_axis_of_quantiles_gives_each_nine_the_same_room() {
        let axis = Axis::quantiles("", &[0.0, 0.9, 0.9999, 1.0]);
        assert_eq!(labels(&axis), ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert!((axis.share(0.99).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(axis.share(1.0), None);
    }

    #[test]
    fn what_has_no_place_on_an_axis_is_not_drawn() {
        for axis in [
            Axis::from_zero("", "", &[]),
            Axis::times("", &[]),
            Axis::counts("", &[f64::NAN]),
            Axis::quantiles("", &[f64::NAN]),
            Axis::times("", &[5.0]),
        ] {
            assert_eq!(axis.share(f64::NAN), None);
            assert_eq!(axis.share(f64::INFINITY), None);
            assert_eq!(axis.share(-1.0), None);
            assert!(!axis.ticks.is_empty() || axis.share(2.0).is_none_or(f64::is_finite));
        }
    }
}
