//! What the walls round a plugin cost, measured against what is left when they are taken away. No
//! test of speed: nothing fails because it is slow. `cargo xtask bench walls` runs it; as a test it
//! runs for a moment, to keep it working. Read `docs/benchmarks.md`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to a person")]

mod call;
mod compile;
mod effort;
mod http;
mod interpreter;
mod machine;
mod memory;
mod raw;
mod report;
mod rounds;
mod service;
mod specimen;
mod spread;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::effort::Plan;
use crate::report::Report;
use crate::service::Service;
use crate::specimen::Specimen;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        // The sandbox compiles in a child of the program that it is part of: this one.
        ["compile-component", class] => return compile::child(class),
        ["serve"] => service::serve(),
        ["memory", kind, count, port, component, cache] => {
            memory::child([kind, count, port, component, cache])
        }
        words => match Plan::parse(words) {
            Some(plan) => measure(&plan),
            None => Ok(()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walls: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(plan: &Plan) -> Result<()> {
    let effort = plan.effort;
    let service = Service::start()?;
    let [nothing, token] = [Specimen::example("nothing")?, Specimen::example("token")?];
    let javascript = effort.javascript().map(|()| Specimen::javascript()).transpose()?.flatten();
    let runtime = runtime()?;
    let mut report = Report::new(effort.name());
    report.add(runtime.block_on(call::measure(&nothing, effort))?);
    if plan.only_call.is_some() {
        report.check()?;
        return show(&report, plan);
    }
    report.add(runtime.block_on(http::measure(&token, service.port(), effort))?);
    for group in memory::measure(&token, javascript.as_ref(), (&service, effort))? {
        report.add(group);
    }
    match &javascript {
        Some(javascript) => {
            for group in compile::measure(&token, javascript, effort)? {
                report.add(group);
            }
            let plugins = (&token, javascript);
            report.add(runtime.block_on(interpreter::measure(plugins, service.port(), effort))?);
        }
        None => report.leave_out("the plugin in JavaScript"),
    }
    report.check()?;
    show(&report, plan)
}

fn show(report: &Report, plan: &Plan) -> Result<()> {
    println!("{}", report.table());
    if let Some(out) = &plan.out {
        let folder = out.parent().context("the report has no folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(out, report.json()?)
            .with_context(|| format!("cannot write {}", out.display()))?;
        println!("written to {}", out.display());
    }
    Ok(())
}

/// One thread, so that its processor time is that of the calls.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}
