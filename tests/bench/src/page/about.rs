//! What a reader must know to judge the figures: the machine, the versions, the way of measuring,
//! notes.

use super::html::{escape, section};
use crate::report::Report;

/// The sections at the end of the page.
pub fn write(report: &Report) -> String {
    [machine(report), versions(report), measuring(report), notes(report)].concat()
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let memory = match machine.memory_mib {
        0 => String::new(),
        mib if mib < 1024 => format!("{mib} MiB"),
        mib => format!("{:.1} GiB", mib as f64 / 1024.0),
    };
    let cores = if machine.cores == 0 { String::new() } else { machine.cores.to_string() };
    let facts = [
        ("Processor", machine.cpu.as_str()),
        ("Cores", &cores),
        ("Memory", &memory),
        ("Kernel", &machine.kernel),
        ("Disk", &machine.disk),
        ("Taken", &report.taken_at),
    ];
    let lead = "All sides ran on this one machine. Another one gives other figures.";
    facts_section("The machine", lead, &facts)
}

fn versions(report: &Report) -> String {
    let facts: Vec<(&str, &str)> =
        report.versions.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    facts_section("Versions", "What was measured.", &facts)
}

/// A section of names and what belongs to them; what is empty is left out.
fn facts_section(title: &str, lead: &str, facts: &[(&str, &str)]) -> String {
    let row = |(name, fact): &(&str, &str)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(fact))
    };
    let rows: String = facts.iter().filter(|(_, fact)| !fact.is_empty()).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    section(title, lead, &format!("<dl>\n{rows}</dl>"))
}

fn measuring(report: &Report) -> String {
    let measures_nothing = report.ratios.is_empty()
        && report.curves.is_empty()
        && report.latencies.is_empty()
        && report.stages.is_empty()
        && report.growths.is_empty();
    if measures_nothing {
        return String::new();
    }
    let items: String =
        MEASURING.iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
    section("How this was measured", "", &format!("<ul>\n{items}</ul>"))
}

fn notes(report: &Report) -> String {
    if report.notes.is_empty() {
        return String::new();
    }
    let items: String =
        report.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    section("Notes", "", &format!("<ul>\n{items}</ul>"))
}

/// What holds for every run; what holds for one belongs into its notes.
const MEASURING: [&str; 4] = [
    "A figure with a range is the median of several rounds; the range reaches from the lowest \
     round to the highest.",
    "A throughput is what all clients together got done in one second.",
    "OpenBao is a secrets manager that issues credentials too: the peer. Raw SQL and the bare \
     gRPC echo do only the part that cannot be left out: the limits.",
    "The same figures, for programs, stand in report.json beside this page.",
];
