//! Measures the processor time of one call, and keeps its panics inside.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How much processor time a call has used. Waiting for the host or for the machine's other work
/// does not count: a busy machine must not look like a busy guest.
#[derive(Debug, Default)]
pub struct CpuMeter {
    used_nanos: AtomicU64,
    began_nanos: AtomicU64,
}

impl CpuMeter {
    /// The time used so far. Called on the thread that runs the guest.
    pub fn used(&self) -> Duration {
        let began = self.began_nanos.load(Ordering::Relaxed);
        let used = self.used_nanos.load(Ordering::Relaxed);
        Duration::from_nanos(used.saturating_add(thread_nanos().saturating_sub(began)))
    }

    fn begin(&self) {
        self.began_nanos.store(thread_nanos(), Ordering::Relaxed);
    }

    fn end(&self) {
        let nanos = u64::try_from(self.used().as_nanos()).unwrap_or(u64::MAX);
        self.used_nanos.store(nanos, Ordering::Relaxed);
    }
}

/// A future whose processor time is measured and whose panic becomes a value.
pub struct Metered<F> {
    future: Pin<Box<F>>,
    meter: Arc<CpuMeter>,
}

impl<F: Future> Metered<F> {
    /// `future`, measured by `meter`.
    pub fn new(future: F, meter: Arc<CpuMeter>) -> Self {
        Self { future: Box::pin(future), meter }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.meter.begin();
        // After a panic the future is dropped and never polled again, so nothing sees a state
        // that the panic left half-changed.
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context)));
        self.meter.end();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(millis: u64) {
        let begun = thread_nanos();
        while thread_nanos() - begun < millis * 1_000_000 {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn counts_work_and_not_waiting() {
        let meter = Arc::new(CpuMeter::default());
        let (done, others_work) = tokio::sync::oneshot::channel();
        let other = std::thread::spawn(move || {
            burn(200);
            done.send(())
        });
        let work = async {
            burn(5);
            others_work.await
        };
        assert!(Metered::new(work, Arc::clone(&meter)).await.is_ok_and(|waited| waited.is_ok()));
        assert!(other.join().is_ok_and(|sent| sent.is_ok()));
        let used = Duration::from_nanos(meter.used_nanos.load(Ordering::Relaxed));
        assert!(used >= Duration::from_millis(5), "{used:?}");
        assert!(used < Duration::from_millis(200), "waiting for 200 ms of work cost {used:?}");
    }

    #[tokio::test]
    async fn a_panic_becomes_a_value() {
        let future = async { panic!("inside") };
        assert!(Metered::new(future, Arc::default()).await.is_err());
    }
}
