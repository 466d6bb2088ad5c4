//! The table of the figures that have a goal, each with a bar against it. Judges none: `met` is
//! given.

use super::figures::{self, Measure, NONE, number_beside, short};
use super::html::{escape, section};
use crate::report::{Better, Ratio, Report, Side};

/// The section, or nothing where there are no ratios.
pub fn write(report: &Report) -> String {
    if report.ratios.is_empty() {
        return String::new();
    }
    let rows: String = report.ratios.iter().map(row).collect();
    let met = report.ratios.iter().filter(|ratio| word(ratio) == MET).count();
    let table = format!(
        "<table class=\"ratios\">\n<thead><tr><th>What is compared</th><th>Result</th>\
         <th>Against its goal</th><th>Claviger</th><th>Compared with</th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table>"
    );
    section(
        &format!("Goals: {met} of {} met", report.ratios.len()),
        "× means “times as much as what it is compared with”. In each bar the upright line is the \
         goal, and the shaded side of it is where the bar should end: to the right of the line \
         where more is better, to the left where less is. Under each figure stand its lowest and \
         highest round.",
        &table,
    )
}

fn row(ratio: &Ratio) -> String {
    let word = word(ratio);
    let (sign, class) = match word {
        MET => ("✓", "met"),
        MISSED => ("✗", "missed"),
        _ => ("?", "unknown"),
    };
    let rounds =
        if ratio.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", ratio.rounds) };
    format!(
        "<tr id=\"{key}\">\n<td class=\"what\">{what}<small>\
         <code>{key}</code> · {rounds}</small></td>\n\
         <td class=\"result\"><strong>{value}</strong>\
         <span class=\"verdict {class}\">{sign} {word}</span></td>\n\
         <td>{bar}</td>\n<td>{ours}</td>\n<td>{theirs}</td>\n</tr>\n",
        key = escape(&ratio.key),
        what = escape(&ratio.what),
        value = escape(&figures::ratio(&number_beside(ratio.value, ratio.goal), &ratio.unit)),
        bar = bar(ratio, class),
        ours = side(&ratio.ours),
        theirs = ratio.theirs.as_ref().map_or_else(|| NONE.to_owned(), side),
    )
}

/// What the row says without colour.
fn word(ratio: &Ratio) -> &'static str {
    match ratio.met {
        _ if !ratio.value.is_finite() => "no figure",
        true => MET,
        false => MISSED,
    }
}

fn side(side: &Side) -> String {
    let measure = Measure::of(&side.unit, side.measured.median);
    format!(
        "<span class=\"figure\">{}</span><small>{}</small><small>{}</small>",
        escape(&measure.full(side.measured.median)),
        escape(&figures::range(&side.measured, &measure)),
        escape(&side.what)
    )
}

/// The goal stands in the middle of every bar, so that the eye compares rows; what is more than
/// twice the goal ends in an arrow.
fn bar(ratio: &Ratio, class: &str) -> String {
    let (good_from, words) = match ratio.better {
        Better::More => (GOAL_PX, "at least"),
        Better::Less => (0.0, "at most"),
    };
    let goal = escape(&figures::ratio(&short(ratio.goal), &ratio.unit));
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 200 40\" width=\"200\" height=\"40\" role=\"img\" \
         aria-label=\"goal: {words} {goal}\">\
         <rect class=\"track\" x=\"0\" y=\"4\" width=\"200\" height=\"18\"/>\
         <rect class=\"good\" x=\"{good_from}\" y=\"4\" width=\"100\" height=\"18\"/>{}\
         <line class=\"goal\" x1=\"100\" x2=\"100\" y1=\"0\" y2=\"26\"/>\
         <text class=\"tick\" x=\"100\" y=\"38\" text-anchor=\"middle\">{words} {goal}</text>\
         </svg>",
        filled(ratio.value / ratio.goal, class)
    )
}

fn filled(share: f64, class: &str) -> String {
    if !share.is_finite() {
        return String::new();
    }
    // A bar of nothing would look like a missing one.
    let end = (share * GOAL_PX).max(2.0);
    if end <= 2.0 * GOAL_PX {
        format!("<rect class=\"value {class}\" x=\"0\" y=\"8\" width=\"{end:.1}\" height=\"10\"/>")
    } else {
        format!("<path class=\"value {class}\" d=\"M0 8H188V4L200 13L188 22V18H0Z\"/>")
    }
}

const MET: &str = "met";
const MISSED: &str = "missed";

/// Where the goal stands in a bar, in px.
const GOAL_PX: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::{filled, row};
    use crate::page::sample;
    use crate::report::Ratio;

    fn first() -> Ratio {
        sample::report().ratios[0].clone()
    }

    #[test]
    fn a_row_says_in_words_whether_its_goal_is_met() {
        let ratio = first();
        assert!(row(&Ratio { met: true, ..ratio.clone() }).contains("✓ met"));
        assert!(row(&Ratio { met: false, ..ratio.clone() }).contains("✗ missed"));
        assert!(row(&Ratio { value: f64::NAN, ..ratio }).contains("? no figure"));
    }

    #[test]
    fn a_row_names_both_sides_with_units_and_ranges() {
        let row = row(&first());
        for expect in ["1,405/s", "1,290–1,466/s", "88.2/s", "15.9 ×", "at least 15 ×"] {
            assert!(row.contains(expect), "`{expect}` is missing in {row}");
        }
    }

    #[test]
    fn a_bar_stays_in_its_track() {
        assert!(filled(0.5, "met").contains("width=\"50.0\""));
        assert!(filled(-3.0, "met").contains("width=\"2.0\""));
        assert!(filled(40.0, "met").contains("<path"));
        assert_eq!(filled(f64::NAN, "met"), "");
        assert_eq!(filled(1.0 / 0.0, "met"), "");
    }
}
