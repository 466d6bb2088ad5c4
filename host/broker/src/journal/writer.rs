//! The one thread that writes: takes what is queued, commits it together, answers after the
//! commit. Knows no table but its own ballast; what is written is the jobs' affair.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use claviger_core::ports::JournalError;
use tokio::sync::{broadcast, oneshot, watch};

use super::checkpoint::Checkpoints;
use super::fault::{Fault, Reach};
use super::ledger::{Ledger, Told};
use super::news::{Alarms, Health, JournalNews, Stats};
use super::recovery::Database;

/// Hears how long each commit took.
pub type CommitObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// One write, whatever its answer.
pub(super) trait Job: Send {
    /// Does the work within the transaction.
    fn run(&mut self, ledger: &mut Ledger<'_>) -> Result<(), Fault>;

    /// Tells the caller what came of it.
    fn answer(self: Box<Self>, verdict: Result<(), JournalError>);
}

/// Where the callers leave their jobs.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: SyncSender<Box<dyn Job>>,
    stats: Arc<Stats>,
}

impl Queue {
    pub(super) const fn new(jobs: SyncSender<Box<dyn Job>>, stats: Arc<Stats>) -> Self {
        Self { jobs, stats }
    }

    /// Has `work` done by the writer; what it changed is durable when this returns `Ok`.
    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Ledger<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.stats.enqueued();
        let job = Box::new(Task { work: Some(work), result: None, reply });
        if let Err(error) = self.jobs.try_send(job) {
            self.stats.dequeued();
            return Err(match error {
                TrySendError::Full(_) => JournalError::Overloaded,
                TrySendError::Disconnected(_) => stopped(),
            });
        }
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Whether the writer takes a job and answers it, be it with an error.
    pub(super) async fn is_answering(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.stats.enqueued();
        let work = Some(|_: &mut Ledger<'_>| Ok(()));
        if self.jobs.try_send(Box::new(Task { work, result: None, reply })).is_err() {
            self.stats.dequeued();
            return false;
        }
        answer.await.is_ok()
    }
}

fn stopped() -> JournalError {
    JournalError::Unwritable("its writer has stopped: restart the broker".to_owned())
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&mut Ledger<'_>) -> Result<T, Fault> + Send,
{
    fn run(&mut self, ledger: &mut Ledger<'_>) -> Result<(), Fault> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(ledger)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, verdict: Result<(), JournalError>) {
        let Self { result, reply, .. } = *self;
        let answer = verdict.and_then(|()| result.ok_or_else(panicked));
        // The caller may have gone; what is recorded is recorded.
        let _gone = reply.send(answer);
    }
}

fn panicked() -> JournalError {
    JournalError::Damaged("a write panicked and was undone: report this as a fault".to_owned())
}

/// The writer's own state.
pub(super) struct Writer {
    pub(super) jobs: Receiver<Box<dyn Job>>,
    pub(super) database: Database,
    pub(super) checkpoints: Checkpoints,
    pub(super) outlets: Outlets,
    pub(super) stats: Arc<Stats>,
    pub(super) looked_at: Instant,
}

/// Where the writer tells what happened.
pub(super) struct Outlets {
    pub(super) news: broadcast::Sender<JournalNews>,
    pub(super) alarms: Arc<Alarms>,
    pub(super) health: watch::Sender<Health>,
    pub(super) observer: Option<CommitObserver>,
}

impl Writer {
    /// Runs until the last [`Queue`] is gone and all that it held is answered.
    pub(super) fn run(mut self) {
        loop {
            match self.jobs.recv_timeout(LOOK_INTERVAL) {
                Ok(first) => self.serve(first),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// No window: what is queued now goes together, and what comes meanwhile goes next.
    fn serve(&mut self, first: Box<dyn Job>) {
        let mut batch = vec![first];
        batch.extend(self.jobs.try_iter().take(BATCH_JOBS_MAX - 1));
        for _ in &batch {
            self.stats.dequeued();
        }
        let unhealthy = !self.outlets.health.borrow().is_writable();
        if unhealthy && self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.look();
        }
        match self.try_serve(&mut batch) {
            Ok(verdicts) => {
                for (job, verdict) in batch.into_iter().zip(verdicts) {
                    job.answer(verdict);
                }
                // Nobody who asked for this commit waits for the log to be looked after.
                if let Ok(pages) = self.checkpoints.after_commit(&self.database) {
                    self.stats.set_wal_pages(pages);
                }
            }
            Err(error) => {
                for job in batch {
                    job.answer(Err(error.clone()));
                }
            }
        }
    }

    /// The verdict on each job, or why the batch came to nothing.
    fn try_serve(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Vec<Verdict>, JournalError> {
        if let Some(error) = self.database.trouble() {
            return Err(error.clone());
        }
        let started = Instant::now();
        let before = self.database.tip().head.seq.get();
        let (verdicts, told) = match self.commit(batch) {
            Ok(committed) => committed,
            Err(fault) => {
                self.fail(fault.clone());
                return Err(fault.error);
            }
        };
        let took = started.elapsed();
        let entries = told.tip.head.seq.get().saturating_sub(before);
        self.stats.committed(took, entries);
        self.stats.set_leases(&told.tip.leases);
        if let Some(observer) = &self.outlets.observer {
            observer(took);
        }
        self.outlets.tell(told);
        Ok(verdicts)
    }

    /// INVARIANT (durable-before-answer): the files are in place before and after the commit, or
    /// nobody is told that anything was recorded. SQLite itself would go on, without an error,
    /// writing into files that nobody can open any more.
    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(Vec<Verdict>, Told), Fault> {
        self.database.check_in_place()?;
        let committed = self.database.transact(|ledger| {
            batch.iter_mut().map(|job| run_one(ledger, job.as_mut())).collect()
        })?;
        self.database.check_in_place()?;
        Ok(committed)
    }

    fn fail(&mut self, fault: Fault) {
        tracing::error!(error = %fault.error, "the journal cannot write");
        self.outlets.set_health(Health::Unwritable(fault.error.to_string()));
        self.database.set_trouble(fault);
    }

    /// Looks whether the files are in place and, when the journal could not write, whether it
    /// can again.
    fn look(&mut self) {
        self.looked_at = Instant::now();
        if self.database.trouble().is_none() {
            if let Err(fault) = self.database.check_in_place() {
                self.fail(fault);
            }
            return;
        }
        match self.database.recover() {
            Ok(()) => {
                tracing::info!("the journal can write again");
                self.stats.set_leases(&self.database.tip().leases);
                self.outlets.set_health(Health::Writable);
                self.outlets.tell_recovered();
            }
            Err(error) => self.outlets.set_health(Health::Unwritable(error.to_string())),
        }
    }
}

impl Outlets {
    fn tell(&self, told: Told) {
        for news in told.news {
            // Without receivers there is nobody to tell.
            let _nobody = self.news.send(news);
        }
        for (backend, at) in told.alarms {
            if self.alarms.ring(&backend, at) {
                let _nobody = self.news.send(JournalNews::DueChanged { backend });
            }
        }
    }

    /// A commit that failed at its very end may be in the file without having been told.
    fn tell_recovered(&self) {
        for backend in self.alarms.backends() {
            let _nobody = self.news.send(JournalNews::DueChanged { backend });
        }
    }

    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
    }
}

/// What one job is answered if its batch commits.
pub(super) type Verdict = Result<(), JournalError>;

/// Runs one job in a savepoint of its own. Its failure undoes it alone; only what concerns the
/// file as a whole fails the batch.
fn run_one(ledger: &mut Ledger<'_>, job: &mut dyn Job) -> Result<Verdict, Fault> {
    let mark = ledger.mark();
    execute(ledger, "SAVEPOINT job")?;
    // A panic leaves nothing behind: the savepoint is rolled back and the ledger taken back.
    let ran = catch_unwind(AssertUnwindSafe(|| job.run(ledger)));
    let fault = match ran {
        Ok(Ok(())) => {
            execute(ledger, "RELEASE job")?;
            return Ok(Ok(()));
        }
        Ok(Err(fault)) if fault.reach != Reach::Job => return Err(fault),
        Ok(Err(fault)) => fault,
        Err(_panic) => Fault { error: panicked(), reach: Reach::Job },
    };
    if ledger.conn().is_autocommit() {
        return Err(Fault::unwritable("SQLite gave the whole transaction up"));
    }
    execute(ledger, "ROLLBACK TO job")?;
    execute(ledger, "RELEASE job")?;
    ledger.take_back(mark);
    Ok(Err(fault.error))
}

fn execute(ledger: &Ledger<'_>, sql: &str) -> Result<(), Fault> {
    ledger.conn().prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Twice a second: an outage is known soon after it begins and over soon after it ends, and two
/// looks at three file names cost nothing.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// More than the callers in flight at full load, so that the bound only matters after a stall;
/// without one, a queue that fills as fast as it empties would never be answered.
const BATCH_JOBS_MAX: usize = 256;
