//! Draws a report as one page of HTML that needs nothing beside itself: no script, no network, no
//! other file. Measures nothing and judges nothing.

mod about;
mod axis;
mod chart;
mod figures;
mod growth;
mod html;
mod latency;
mod ratios;
#[cfg(test)]
mod sample;
mod sides;
mod stages;
mod throughput;

use crate::report::Report;
use html::escape;
use sides::Sides;

/// The whole page. A part of the report that is empty has no section.
pub fn render(report: &Report) -> String {
    let sides = Sides::of(report);
    let sections = [
        ratios::write(report),
        throughput::write(report, &sides),
        latency::write(report, &sides),
        stages::write(report),
        growth::write(report),
        about::write(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{TITLE}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}{}</body>\n</html>\n",
        opening(report),
        sections.concat()
    )
}

fn opening(report: &Report) -> String {
    let taken = match report.taken_at.as_str() {
        "" => String::new(),
        taken_at => format!("<small>Taken {}</small>\n", escape(taken_at)),
    };
    let quick = if report.quick { QUICK } else { "" };
    format!(
        "<header>\n{taken}<h1>{TITLE}</h1>\n<p class=\"purpose\">{PURPOSE}</p>\n{quick}</header>\n"
    )
}

const TITLE: &str = "How fast is Claviger?";

/// For somebody who has never seen the project.
const PURPOSE: &str = "Claviger issues short-lived credentials to AI agents, so that no agent ever \
    holds a lasting password; this page shows how fast it does that, next to OpenBao, which can \
    do it too, and next to the bare parts that any such service is built on.";

const QUICK: &str = "<p class=\"notice\"><strong>A quick run.</strong> It had few and short \
    rounds, to see that the benches work. Do not quote its figures.</p>\n";

/// The page asks for nothing from anywhere; with this, a fault in it cannot make it ask either.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = include_str!("page/style.css");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::{render, sample};
    use crate::report::{Machine, Report};

    const TITLES: [&str; 9] = [
        "<h2>Goals",
        "<h2>Throughput",
        "<h2>Latency",
        "<h2>Stages",
        "<h2>Growth",
        "<h2>The machine",
        "<h2>Versions",
        "<h2>How this was measured",
        "<h2>Notes",
    ];

    /// The sample with every text or every figure replaced.
    fn changed(replace: &dyn Fn(&mut Value)) -> Report {
        fn walk(value: &mut Value, replace: &dyn Fn(&mut Value)) {
            match value {
                Value::Array(items) => items.iter_mut().for_each(|item| walk(item, replace)),
                Value::Object(fields) => {
                    let free = fields.iter_mut().filter(|(name, _)| *name != "better");
                    free.for_each(|(_, field)| walk(field, replace));
                }
                other => replace(other),
            }
        }
        let mut value = serde_json::to_value(sample::report()).unwrap();
        walk(&mut value, replace);
        serde_json::from_value(value).unwrap()
    }

    fn empty() -> Report {
        Report {
            quick: false,
            taken_at: String::new(),
            machine: Machine {
                cpu: String::new(),
                cores: 0,
                memory_mib: 0,
                kernel: String::new(),
                disk: String::new(),
            },
            versions: BTreeMap::new(),
            ratios: Vec::new(),
            curves: Vec::new(),
            latencies: Vec::new(),
            stages: Vec::new(),
            growths: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn every_section_and_every_ratio_is_in_the_page_in_order() {
        let page = render(&sample::report());
        let mut from = 0;
        for title in TITLES {
            let at = page[from..].find(title);
            from += at.unwrap_or_else(|| panic!("`{title}` is missing or too early"));
        }
        for key in sample::KEYS {
            assert!(page.contains(&format!("<code>{key}</code>")), "`{key}` is missing");
        }
    }

    #[test]
    fn there_is_one_chart_for_each_workload_load_and_growth() {
        let report = sample::report();
        let charts = |of: &str| render(&report).matches(&format!("aria-label=\"{of}")).count();
        assert_eq!(charts("Throughput of "), 3);
        assert_eq!(charts("Latency of "), 4);
        let alone = Report { growths: report.growths.clone(), ..empty() };
        assert_eq!(render(&alone).matches("<svg").count(), report.growths.len());
    }

    #[test]
    fn what_is_missing_has_no_section() {
        let page = render(&empty());
        assert!(!page.contains("<h2>") && !page.contains("<svg"), "{page}");
        assert!(page.contains("How fast is Claviger?"));
        let no_stages = render(&Report { stages: Vec::new(), ..sample::report() });
        assert!(!no_stages.contains("<h2>Stages") && no_stages.contains("<h2>Growth"));
    }

    #[test]
    fn a_quick_run_says_so() {
        assert!(render(&Report { quick: true, ..empty() }).contains("A quick run"));
        assert!(!render(&Report { quick: false, ..empty() }).contains("A quick run"));
    }

    #[test]
    fn no_text_of_a_report_becomes_part_of_the_page() {
        const HOSTILE: &str = "<b onload='x'>&amp\"";
        let mut report = changed(&|value| {
            if value.is_string() {
                *value = Value::from(HOSTILE);
            }
        });
        report.versions.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
        let page = render(&report);
        assert!(!page.contains("<b onload"), "a text is not escaped");
        assert!(!page.contains("onload='"), "a quote is not escaped");
        assert!(!page.contains("&amp\""), "an ampersand is not escaped");
        assert!(page.contains("&lt;b onload=&#39;x&#39;&gt;&amp;amp&quot;"));
    }

    #[test]
    fn figures_that_are_not_finite_break_nothing() {
        let unknown = changed(&|value| {
            if value.is_f64() {
                *value = Value::Null;
            }
        });
        let mut endless = sample::report();
        endless.ratios.iter_mut().for_each(|ratio| ratio.goal = 0.0);
        endless.curves.iter_mut().flat_map(|curve| &mut curve.points).for_each(|point| {
            point.per_sec.max = f64::INFINITY;
            point.p99_us = f64::NEG_INFINITY;
        });
        for report in [unknown, endless] {
            let page = render(&report);
            for word in ["NaN", "inf", "null"] {
                assert!(!page.contains(word), "`{word}` is in the page");
            }
            TITLES.iter().for_each(|title| assert!(page.contains(title), "`{title}` is missing"));
        }
    }

    #[test]
    fn the_page_needs_nothing_beside_itself() {
        let page = render(&sample::report());
        for outside in ["<script", "http:", "https:", "url(", "@import", "src=", "href="] {
            assert!(!page.contains(outside), "the page contains `{outside}`");
        }
    }

    #[test]
    fn every_element_is_closed() {
        let page = render(&sample::report());
        for element in ["section", "table", "tr", "td", "svg", "text", "figure", "details", "div"] {
            let opened = page.matches(&format!("<{element}>")).count()
                + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "<{element}>");
        }
    }
}
