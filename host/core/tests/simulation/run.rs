//! One run: draws what happens next, polls the futures in any order, checks after every step.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use claviger_core::flow::again::ABSENT_GRACE;
use claviger_core::flow::revoke::ATTEMPTS_MAX;
use claviger_core::journal::{Entry, JournalSeq};
use claviger_core::ports::{Policies, Ports};
use claviger_core::session::EndCause;
use rand::Rng;

use super::actors;
use super::checker::{self, Checker};
use super::ledger::INTENT_TIMEOUT;
use super::policies::{BACKENDS, SNAPSHOTS};
use super::world::{Coverage, Faults, Flaw, Sim};

/// What a run came to.
pub struct Outcome {
    pub violation: Option<String>,
    pub coverage: Coverage,
    pub entries: Vec<(JournalSeq, Entry)>,
}

/// Runs one seed to its end or to the first violation.
pub fn run(seed: u64, flaw: Flaw) -> Outcome {
    let mut run = Run::new(seed, flaw);
    let violation = run.whole().err();
    let world = run.sim.world();
    Outcome { violation, coverage: world.coverage.clone(), entries: world.ledger.entries.clone() }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Run {
    sim: Sim,
    tasks: Vec<Task>,
    checker: Checker,
    /// How likely each of the rarer things is in this run, in permille.
    crash: u32,
    drop: u32,
    toggle: u32,
    /// Whether the run ends with an upstream that is down for longer than the worker tries.
    outage: bool,
}

impl Run {
    fn new(seed: u64, flaw: Flaw) -> Self {
        let sim = Sim::new(seed, flaw);
        let (crash, drop, toggle) = {
            let world = &mut *sim.world();
            world.ledger.load_policies(SNAPSHOTS[0].snapshot.digest(), world.now);
            let rng = &mut world.rng;
            (rng.random_range(0..10), rng.random_range(0..30), rng.random_range(0..30))
        };
        let outage = seed.is_multiple_of(8);
        Self { sim, tasks: Vec::new(), checker: Checker::default(), crash, drop, toggle, outage }
    }

    fn whole(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step();
            self.checker.check(&self.sim.world())?;
        }
        if self.outage {
            self.outlast()?;
        }
        self.calm_down()?;
        self.outlive()
    }

    /// One step: usually something that is under way goes on, sometimes something begins.
    fn step(&mut self) {
        let (draw, rare) = {
            let rng = &mut self.sim.world().rng;
            (rng.random_range(0..100_u32), rng.random_range(0..1000_u32))
        };
        if rare < self.crash {
            self.crash();
        } else if rare < self.crash + self.drop {
            self.drop_one();
        } else if rare < self.crash + self.drop + self.toggle {
            self.toggle();
        } else {
            match draw {
                0..45 => self.poll_one(),
                45..75 => self.commit_one(),
                75..80 => self.advance(),
                _ => self.begin(),
            }
        }
    }

    fn crash(&mut self) {
        self.tasks.clear();
        self.sim.world().crash();
    }

    /// A client goes away, or a host gives up waiting.
    fn drop_one(&mut self) {
        if let Some(index) = self.any_task() {
            drop(self.tasks.swap_remove(index));
            self.sim.world().coverage.dropped_futures += 1;
        }
    }

    fn toggle(&mut self) {
        let world = &mut *self.sim.world();
        let percent = world.rng.random_range(0..80);
        world.faults = Faults {
            journal_down: world.chance(15),
            plugin_percent: if world.chance(50) { percent } else { 0 },
            revoke_down: world.chance(20),
            revoked_at_once: world.rng.random_range(1..5),
        };
    }

    fn any_task(&self) -> Option<usize> {
        let count = self.tasks.len();
        (count > 0).then(|| self.sim.world().rng.random_range(0..count))
    }

    fn poll_one(&mut self) {
        let Some(index) = self.any_task() else { return };
        let mut context = Context::from_waker(Waker::noop());
        if self.tasks[index].as_mut().poll(&mut context).is_ready() {
            drop(self.tasks.swap_remove(index));
        }
    }

    fn commit_one(&mut self) {
        let world = &mut *self.sim.world();
        if let Some(write) = world.queue.pop_front() {
            write(world);
        }
    }

    fn advance(&mut self) {
        let world = &mut *self.sim.world();
        let millis = match world.rng.random_range(0..10_u8) {
            0..7 => world.rng.random_range(0..3_000),
            7..9 => world.rng.random_range(0..40_000),
            _ => world.rng.random_range(0..1_200_000),
        };
        world.advance(Duration::from_millis(millis));
    }

    fn begin(&mut self) {
        if self.tasks.len() >= TASKS_MAX {
            return;
        }
        let sim = self.sim.clone();
        let world = &mut *self.sim.world();
        let draw = world.rng.random_range(0..100_u8);
        let client = match world.clients.len() {
            0 => None,
            count => {
                let index = world.rng.random_range(0..count);
                world.clients.get(index)
            }
        };
        let task: Task = match (draw, client) {
            (0..45, Some(client)) => Box::pin(actors::issue(sim, client.session.clone())),
            (45..55, Some(client)) => match client.leases.last() {
                Some(lease) => Box::pin(actors::release(sim, client.session.id(), *lease)),
                None => return,
            },
            (55..60, Some(client)) => {
                Box::pin(actors::end_session(sim, client.session.id(), EndCause::Closed))
            }
            (60..66, _) => {
                // Every other time the generous one, so that more is issued.
                let index = world.rng.random_range(0..SNAPSHOTS.len());
                let index = if world.chance(50) { 0 } else { index };
                Box::pin(actors::load_policies(sim, index))
            }
            (66..68, _) => Box::pin(actors::reap(sim)),
            (68..72, _) => Box::pin(actors::decide_again_and_work(sim)),
            (72..92, _) => {
                Box::pin(actors::worker_pass(sim, world.rng.random_range(0..BACKENDS.len())))
            }
            _ if world.clients.len() < CLIENTS_MAX => {
                // Half of them below another one, however deep that is and whether or not it lives.
                let parent = client.map(|client| client.session.clone());
                let parent = if world.rng.random_bool(0.5) { parent } else { None };
                Box::pin(actors::open_session(sim, parent))
            }
            _ => return,
        };
        self.tasks.push(task);
    }

    /// Every attempt to revoke fails, until the worker gives up.
    fn outlast(&mut self) -> Result<(), String> {
        self.sim.world().faults = Faults { revoke_down: true, ..Faults::default() };
        for _ in 0..=ATTEMPTS_MAX {
            self.sim.world().advance(Duration::from_mins(5));
            for backend in 0..BACKENDS.len() {
                self.tasks.push(Box::pin(actors::worker_pass(self.sim.clone(), backend)));
            }
            self.finish()?;
        }
        Ok(())
    }

    /// Faults end; the intent timeout passes; the worker works off what is due.
    fn calm_down(&mut self) -> Result<(), String> {
        self.sim.world().faults = Faults::default();
        // Together with what is still under way, so that this finds a pass that has begun.
        self.tasks.push(Box::pin(actors::decide_again(self.sim.clone())));
        self.finish()?;
        actors::finish_reload(&self.sim);
        self.decide_again()?;
        // A role that was gone has been gone for long enough after this. Twice, since of passes that
        // overlapped here, as the broker's never do, one may have forgotten since when.
        for _ in 0..2 {
            self.sim.world().advance(ABSENT_GRACE);
            self.sim.world().passed = None;
            self.decide_again()?;
        }
        for _ in 0..2 {
            // Longer than the intent timeout and than the longest wait for another attempt.
            self.sim.world().advance(INTENT_TIMEOUT.max(Duration::from_mins(5)));
            self.work_off()?;
        }
        checker::settled(&self.sim.world())
    }

    /// Passes until one was whole under the snapshot in force, as the broker does.
    fn decide_again(&mut self) -> Result<(), String> {
        for _ in 0..PASSES_MAX {
            let current = self.sim.policies().current().digest();
            if self.sim.world().passed == Some(current) {
                return Ok(());
            }
            self.tasks.push(Box::pin(actors::decide_again(self.sim.clone())));
            self.finish()?;
        }
        Err("passes come to no end".to_owned())
    }

    /// Every session comes to its end.
    fn outlive(&mut self) -> Result<(), String> {
        self.sim.world().advance(Duration::from_hours(13));
        self.work_off()?;
        checker::over(&self.sim.world())
    }

    fn work_off(&mut self) -> Result<(), String> {
        self.tasks.push(Box::pin(actors::reap(self.sim.clone())));
        self.finish()?;
        loop {
            let entries_before = self.sim.world().ledger.entries.len();
            for backend in 0..BACKENDS.len() {
                self.tasks.push(Box::pin(actors::worker_pass(self.sim.clone(), backend)));
            }
            self.finish()?;
            if self.sim.world().ledger.entries.len() == entries_before {
                return Ok(());
            }
        }
    }

    /// Polls everything to its end; what hangs is given up.
    fn finish(&mut self) -> Result<(), String> {
        let mut context = Context::from_waker(Waker::noop());
        let mut idle_rounds = 0;
        while idle_rounds < IDLE_ROUNDS_MAX && !self.tasks.is_empty() {
            let before = (self.tasks.len(), self.sim.world().ledger.entries.len());
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            while !self.sim.world().queue.is_empty() {
                self.commit_one();
                self.checker.check(&self.sim.world())?;
            }
            let after = (self.tasks.len(), self.sim.world().ledger.entries.len());
            idle_rounds = if before == after { idle_rounds + 1 } else { 0 };
        }
        self.tasks.clear();
        self.checker.check(&self.sim.world())
    }
}

/// Long enough for a dozen credentials with their ends, short enough for thousands of runs.
const STEPS: usize = 300;

/// Few futures at once meet more often.
const TASKS_MAX: usize = 12;

/// As above.
const CLIENTS_MAX: usize = 4;

/// One under the snapshot in force is enough once nothing else is under way.
const PASSES_MAX: usize = 3;

/// More turns than any future idles for that has not been hung up by the upstream: a pass that finds
/// nothing to end reads up to fifty pages of two, and waits up to four turns for each.
const IDLE_ROUNDS_MAX: usize = 250;
