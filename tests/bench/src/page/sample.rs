//! A made-up report with something in every part, for tests of the page. Nothing in it was
//! measured.

use crate::report::Report;

/// The report in `sample.json`.
pub fn report() -> Report {
    serde_json::from_str(include_str!("sample.json")).unwrap()
}

/// The keys of all ratios, in the order of the page.
pub const KEYS: [&str; 10] = [
    "pg_vs_openbao_16",
    "pg_vs_raw_sql_16",
    "mint_vs_openbao_64",
    "issue_vs_echo_256",
    "issue_p50_vs_echo_p50_1",
    "fresh_minus_warm_us",
    "decide_10k_vs_10",
    "session_end_1000_vs_raw",
    "rss_30k_vs_openbao",
    "restart_1m_secs",
];
