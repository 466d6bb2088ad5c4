//! One decision, in process, against more and more policies and roles: what grows and what does not.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use claviger_bench::report::Growth;
use claviger_bench::report::Spread;
use claviger_core::decide::decide;
use claviger_core::fixture;
use claviger_core::policy::{PolicyFile, PolicySnapshot, PolicySources};

use crate::Bench;
use crate::figures::{Compared, Named, ratio};

/// Measures the goal's two sizes in turns, then the growth.
pub fn measure(bench: &mut Bench) -> Result<()> {
    bench.say("decisions");
    let most = bench.effort.of(10_000, 10_000);
    let (few, many) = (with_policies(10)?, with_policies(most)?);
    let (mut fews, mut manys) = (Vec::new(), Vec::new());
    for _ in 0..=bench.effort.rounds() {
        fews.push(one_decision(bench, &few));
        manys.push(one_decision(bench, &many));
    }
    // The first of each touches memory for the first time.
    let (fews, manys) = (fews.split_off(1), manys.split_off(1));
    bench.ratio(ratio(&Compared {
        key: "decide_10k_vs_10",
        ours: Named { what: "among 10,000", unit: "µs", values: &manys },
        theirs: Named { what: "among 10", unit: "µs", values: &fews },
    })?);
    let sizes = || [10, 100, 1000, 10_000].into_iter().filter(|size| *size <= most);
    growth(bench, "policies", sizes().map(|count| Ok((count, with_policies(count)?))))?;
    growth(bench, "roles", sizes().map(|count| Ok((count, with_roles(count)?))))
}

fn growth(
    bench: &mut Bench,
    of: &str,
    snapshots: impl Iterator<Item = Result<(usize, PolicySnapshot)>>,
) -> Result<()> {
    let mut points = Vec::new();
    for snapshot in snapshots {
        let (count, snapshot) = snapshot?;
        let micros: Vec<_> = (0..3).map(|_| one_decision(bench, &snapshot)).collect();
        points.push((count as f64, Spread::of(&micros).median));
    }
    bench.growth(Growth {
        of: of.to_owned(),
        measure: "one decision".to_owned(),
        unit: "µs".to_owned(),
        points,
    });
    Ok(())
}

/// Microseconds.
fn one_decision(bench: &Bench, snapshot: &PolicySnapshot) -> f64 {
    let (session, ask, now) = (fixture::session_in(snapshot, 1), fixture::ask(), fixture::now());
    let times = bench.effort.of(20_000, 5_000);
    let begun = Instant::now();
    for _ in 0..times {
        let decided = decide(black_box(snapshot), &session, &ask, now);
        assert!(black_box(decided).is_ok(), "the fixture permits its own ask");
    }
    begun.elapsed().as_secs_f64() * 1e6 / times as f64
}

/// The fixture's policies, and policies of other roles.
fn with_policies(count: usize) -> Result<PolicySnapshot> {
    let mut sources = fixture::sources();
    let mut files = vec![String::new(); count.div_ceil(FILE_POLICIES)];
    for number in 0..count {
        let Some(text) = files.get_mut(number / FILE_POLICIES) else { continue };
        writeln!(
            text,
            "@id(\"other.{number}\")\npermit (principal in Role::\"other-{}\", \
             action == Action::\"issue\", resource == Scope::\"orders-db/readonly\") \
             when {{ context.ttl_secs <= {} }};",
            number % OTHER_ROLES,
            600 + number % 60
        )?;
    }
    add_roles(&mut sources, OTHER_ROLES);
    for (number, text) in files.into_iter().enumerate() {
        sources.policies.push(PolicyFile { path: format!("others-{number}.cedar"), text });
    }
    load(sources)
}

fn with_roles(count: usize) -> Result<PolicySnapshot> {
    let mut sources = fixture::sources();
    add_roles(&mut sources, count);
    load(sources)
}

fn add_roles(sources: &mut PolicySources, count: usize) {
    for number in 0..count {
        let role = fixture::role(&format!("other-{number}"), &["orders.read"]);
        sources.roles.insert(role.name.clone(), role);
    }
}

fn load(sources: PolicySources) -> Result<PolicySnapshot> {
    let snapshot = PolicySnapshot::load(sources).map_err(|problems| {
        anyhow::anyhow!("the bench's policies are not valid: {:?}", problems.first())
    })?;
    ensure!(snapshot.roles().len() > 1, "no roles");
    Ok(snapshot)
}

/// A file may have a megabyte.
const FILE_POLICIES: usize = 1000;

/// Policies are many because roles are.
const OTHER_ROLES: usize = 1000;
