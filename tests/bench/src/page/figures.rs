//! Writes figures as people read them: `1,405/s`, `0.53 ms`, `12.3 ×`. Escapes nothing, draws
//! nothing.

use crate::report::Spread;

/// The unit in which a figure reads best, so that its neighbours are written in the same one.
pub struct Measure {
    /// How many of the figure's own units make one of these.
    divisor: f64,
    /// What stands behind the number, with its space where it has one.
    suffix: String,
}

impl Measure {
    /// The measure for figures in `unit` that are about as large as `typical`.
    pub fn of(unit: &str, typical: f64) -> Self {
        let exactly = |suffix: String| Self { divisor: 1.0, suffix };
        match unit {
            "" => exactly(String::new()),
            "/s" | "1/s" | "per s" | "per_sec" | "per second" => exactly("/s".to_owned()),
            "B" | "bytes" => Self::among(&BYTES, "B", typical),
            "us" => Self::among(&TIMES, "µs", typical),
            "ns" | "µs" | "ms" | "s" => Self::among(&TIMES, unit, typical),
            other => exactly(format!(" {other}")),
        }
    }

    /// The number alone.
    pub fn number(&self, figure: f64) -> String {
        number(figure / self.divisor)
    }

    /// The number and the unit.
    pub fn full(&self, figure: f64) -> String {
        self.behind(figure, self.number(figure))
    }

    /// The number without noughts at its end, and the unit: for ticks and goals.
    pub fn round(&self, figure: f64) -> String {
        self.behind(figure, short(figure / self.divisor))
    }

    fn behind(&self, figure: f64, number: String) -> String {
        if figure.is_finite() { format!("{number}{}", self.suffix) } else { number }
    }

    /// Keeps the unit a figure came in while that leaves a readable number; otherwise takes the
    /// largest unit of which there is at least one.
    fn among(units: &[(&str, f64)], unit: &str, typical: f64) -> Self {
        let size = |(name, size): &(&str, f64)| (*name == unit).then_some(*size);
        let own = units.iter().find_map(size).unwrap_or(1.0);
        let readable = !typical.is_finite() || (0.1..1000.0).contains(&typical.abs());
        let best = units.iter().rev().find(|(_, size)| typical.abs() * own >= *size);
        let (name, size) = match best {
            Some((name, size)) if !readable => (*name, *size),
            _ => (unit, own),
        };
        Self { divisor: size / own, suffix: format!(" {name}") }
    }
}

/// A figure with about three digits that mean something.
pub fn number(figure: f64) -> String {
    let size = figure.abs();
    let written = match size {
        _ if !figure.is_finite() => return NONE.to_owned(),
        _ if size >= 1e15 => format!("{size:.2e}"),
        _ if size >= 99.95 => grouped(size),
        _ if size >= 9.995 => format!("{size:.1}"),
        _ if size >= 0.0995 => format!("{size:.2}"),
        _ if size >= 0.0005 => format!("{size:.3}"),
        _ if size == 0.0 => return "0".to_owned(),
        _ => format!("{size:.1e}"),
    };
    if figure < 0.0 { format!("−{written}") } else { written }
}

/// A figure with enough digits to be told apart from another that it differs from: 0.1996 that
/// misses a goal of 0.2 may not read as 0.20.
pub fn number_beside(figure: f64, other: f64) -> String {
    let written = number(figure);
    let exact = trimmed(&format!("{figure:.4}"));
    if figure.is_finite() && figure != other && written == number(other) { exact } else { written }
}

/// The value or the goal of a ratio, in its own unit, so that the two can be compared.
pub fn ratio(number: &str, unit: &str) -> String {
    match unit {
        _ if number == NONE => NONE.to_owned(),
        "" => format!("{number} ×"),
        _ => format!("{number} {unit}"),
    }
}

/// A figure without noughts behind the point.
pub fn short(figure: f64) -> String {
    let long = number(figure);
    if long.contains('e') { long } else { trimmed(&long) }
}

/// The lowest and the highest round, in the measure of their median.
pub fn range(spread: &Spread, measure: &Measure) -> String {
    if spread.min.is_finite() && spread.max.is_finite() {
        format!("{}–{}", measure.number(spread.min), measure.full(spread.max))
    } else {
        NONE.to_owned()
    }
}

/// A length of time given in µs.
pub fn time(us: f64) -> String {
    Measure::of("µs", us).full(us)
}

/// A quantile as a share of the requests: `99.9 %`.
pub fn quantile(share: f64) -> String {
    if !share.is_finite() {
        return NONE.to_owned();
    }
    format!("{} %", trimmed(&format!("{:.4}", share * 100.0)))
}

fn trimmed(number: &str) -> String {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        number.to_owned()
    }
}

/// A whole number with a comma before every three digits.
fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut written = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            written.push(',');
        }
        written.push(digit);
    }
    written
}

/// What stands where a figure is missing or is not finite.
pub const NONE: &str = "–";

/// Units of time, smallest first, in µs.
const TIMES: [(&str, f64); 4] = [("ns", 1e-3), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];

/// Units of memory, smallest first, in bytes.
const BYTES: [(&str, f64); 4] =
    [("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];

#[cfg(test)]
mod tests {
    use super::{Measure, number, number_beside, quantile, range, ratio, short};
    use crate::report::Spread;

    fn check(unit: &str, figure: f64, expect: &str) {
        assert_eq!(Measure::of(unit, figure).full(figure), expect, "{figure} in `{unit}`");
    }

    #[test]
    fn figures_are_written_as_people_read_them() {
        check("/s", 1405.2, "1,405/s");
        check("per second", 1_234_567.0, "1,234,567/s");
        check("ms", 0.53, "0.53 ms");
        check("µs", 530.0, "530 µs");
        check("µs", 5300.0, "5.30 ms");
        check("µs", 1_840_000.0, "1.84 s");
        check("µs", 0.04, "40.0 ns");
        check("s", 0.84, "0.84 s");
        check("s", 0.0123, "12.3 ms");
        check("MiB", 62.4, "62.4 MiB");
        check("bytes", 65_431_142.0, "62.4 MiB");
        check("sessions", 3.0, "3.00 sessions");
        check("", 12.0, "12.0");
    }

    #[test]
    fn figures_that_are_not_finite_are_a_dash_without_a_unit() {
        check("µs", f64::NAN, "–");
        check("/s", f64::INFINITY, "–");
        check("sessions", f64::NEG_INFINITY, "–");
        assert_eq!(quantile(f64::NAN), "–");
        assert_eq!(ratio(&number(f64::NAN), ""), "–");
    }

    #[test]
    fn numbers_keep_three_digits_and_round_into_the_next_form() {
        assert_eq!(number(999.7), "1,000");
        assert_eq!(number(99.97), "100");
        assert_eq!(number(9.999), "10.0");
        assert_eq!(number(0.2), "0.20");
        assert_eq!(number(0.0123), "0.012");
        assert_eq!(number(-1234.0), "−1,234");
        assert_eq!(number(-3.2), "−3.20");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn a_figure_close_to_its_goal_is_told_apart_from_it() {
        assert_eq!(number_beside(5.998, 6.0), "5.998");
        assert_eq!(number_beside(0.2, 0.2), "0.20");
        assert_eq!(number_beside(0.21, 0.2), "0.21");
        assert_eq!(number_beside(f64::NAN, f64::NAN), "–");
    }

    #[test]
    fn ratios_goals_ranges_and_quantiles() {
        assert_eq!(ratio(&number(12.34), ""), "12.3 ×");
        assert_eq!(ratio(&short(15.0), "µs"), "15 µs");
        assert_eq!(short(1.5), "1.5");
        assert_eq!(quantile(0.9999), "99.99 %");
        assert_eq!(quantile(0.5), "50 %");
        let spread = Spread { median: 5300.0, min: 900.0, max: 6100.0 };
        assert_eq!(range(&spread, &Measure::of("µs", spread.median)), "0.90–6.10 ms");
    }
}
