//! Which colour a side has, the same in every chart of one page. Knows no colours: `style.css`
//! does.

use crate::report::Report;

/// The sides of a report, in the order in which they are first named.
pub struct Sides {
    ours: Vec<String>,
    others: Vec<String>,
}

impl Sides {
    /// Collects the sides of every chart.
    pub fn of(report: &Report) -> Self {
        let mut sides = Self { ours: Vec::new(), others: Vec::new() };
        let curves = report.curves.iter().map(|curve| &curve.side);
        let latencies = report.latencies.iter().map(|latency| &latency.side);
        for side in curves.chain(latencies) {
            let group = if is_ours(side) { &mut sides.ours } else { &mut sides.others };
            if !group.contains(side) {
                group.push(side.clone());
            }
        }
        sides
    }

    /// The classes of a side's line and label. Ours is always the first colour; a second way of
    /// running Claviger, or more others than there are colours, is told apart by its dashes.
    pub fn classes(&self, side: &str) -> String {
        let place = |group: &[String]| group.iter().position(|known| known == side).unwrap_or(0);
        let (tone, repeat) = if is_ours(side) {
            (0, place(&self.ours))
        } else {
            let index = place(&self.others);
            (1 + index % OTHER_TONES, index / OTHER_TONES)
        };
        if repeat == 0 { format!("tone-{tone}") } else { format!("tone-{tone} dashed") }
    }
}

fn is_ours(side: &str) -> bool {
    side.to_lowercase().starts_with("claviger")
}

/// The classes of what only Claviger does.
pub const OURS: &str = "tone-0";

/// How many colours `style.css` has beside ours: `tone-1` to `tone-4`.
const OTHER_TONES: usize = 4;

#[cfg(test)]
mod tests {
    use super::Sides;

    #[test]
    fn ours_is_always_the_first_colour() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let sides = Sides {
            ours: owned(&["Claviger", "claviger, cold"]),
            others: owned(&["OpenBao", "raw SQL", "echo", "d", "e"]),
        };
        assert_eq!(sides.classes("Claviger"), "tone-0");
        assert_eq!(sides.classes("claviger, cold"), "tone-0 dashed");
        assert_eq!(sides.classes("OpenBao"), "tone-1");
        assert_eq!(sides.classes("echo"), "tone-3");
        assert_eq!(sides.classes("e"), "tone-1 dashed");
    }
}
