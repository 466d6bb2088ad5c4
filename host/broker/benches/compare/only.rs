//! One kind of load on Claviger alone, for a profiler to look at: `load <token|login> <clients>
//! <seconds>`. Prints what it came to and the broker's process.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use claviger_bench::load::{Spell, closed};

use crate::claviger::{Claviger, Wanted};

/// Loads as `words` say.
pub async fn load(words: [&str; 3]) -> Result<()> {
    let [wanted, clients, secs] = words;
    let wanted = match wanted {
        "token" => Wanted::Token,
        "login" => Wanted::Login,
        other => bail!("there is no load `{other}`: there is token, login"),
    };
    let clients = clients.parse().with_context(|| format!("`{clients}` is no number"))?;
    let secs = secs.parse().with_context(|| format!("`{secs}` is no number"))?;
    let claviger = Claviger::start().await?;
    let agents = claviger.agents(clients, wanted).await?;
    println!("broker's process: {}", claviger.broker()?.pid());
    let spell = Spell { warm: Duration::from_secs(1), counted: Duration::from_secs(secs) };
    let (_, tally) = closed(agents, spell).await?;
    let (p50, p99) = (tally.micros(0.5), tally.micros(0.99));
    println!("{:.0}/s, p50 {p50:.0} µs, p99 {p99:.0} µs", tally.per_sec());
    Ok(())
}
