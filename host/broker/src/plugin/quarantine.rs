//! Keeps a plugin that keeps breaking the sandbox away from work for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One plugin's recent traps.
#[derive(Debug, Default)]
pub struct Quarantine {
    traps: VecDeque<Instant>,
    until: Option<Instant>,
    times: u32,
    trapped: u64,
}

impl Quarantine {
    /// How long the plugin still has to wait, if it is quarantined.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// How often the plugin trapped in all.
    pub const fn traps(&self) -> u64 {
        self.trapped
    }

    /// Lets the plugin work again at once, as if it had never trapped; false if it could.
    pub fn lift(&mut self, now: Instant) -> bool {
        let lifted = self.remaining(now).is_some();
        *self = Self { trapped: self.trapped, ..Self::default() };
        lifted
    }

    /// Counts a trap; true if it was the one too many.
    pub fn trapped(&mut self, now: Instant) -> bool {
        self.traps.retain(|trap| now.duration_since(*trap) < WINDOW);
        self.traps.push_back(now);
        self.trapped = self.trapped.saturating_add(1);
        if self.traps.len() < TRAPS_MAX {
            return false;
        }
        self.traps.clear();
        self.until = Some(now + self.wait());
        self.times = self.times.saturating_add(1);
        true
    }

    /// Counts a call that ended well: the next quarantine is a short one again.
    pub fn ended_well(&mut self) {
        self.times = 0;
    }

    fn wait(&self) -> Duration {
        FIRST_WAIT.saturating_mul(1 << self.times.min(8)).min(LONGEST_WAIT)
    }
}

/// One or two may be a single odd request; three in a minute are the plugin.
const TRAPS_MAX: usize = 3;

/// Within how long.
const WINDOW: Duration = Duration::from_secs(60);

/// Long enough to stop a storm of retries, short enough to outlast by waiting.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The wait doubles up to this: revocations must be tried again within minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_trap_within_a_minute_quarantines_and_waits_grow() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut quarantine = Quarantine::default();
        assert!(!quarantine.trapped(at(0)));
        assert!(!quarantine.trapped(at(61)));
        assert!(!quarantine.trapped(at(62)), "the first one is too long ago to count");
        assert!(quarantine.trapped(at(63)));
        assert_eq!(quarantine.remaining(at(70)), Some(Duration::from_secs(3)));
        assert_eq!(quarantine.remaining(at(73)), None);
        assert!(!quarantine.trapped(at(80)) && !quarantine.trapped(at(80)));
        assert!(quarantine.trapped(at(80)));
        assert_eq!(quarantine.remaining(at(80)), Some(Duration::from_secs(20)));
    }

    #[test]
    fn lifting_ends_it_at_once_and_forgives_what_led_to_it() {
        let now = Instant::now();
        let mut quarantine = Quarantine::default();
        assert!(!quarantine.lift(now), "there was nothing to lift");
        for _ in 0..3 {
            quarantine.trapped(now);
        }
        assert!(quarantine.lift(now));
        assert_eq!((quarantine.remaining(now), quarantine.traps()), (None, 3));
        assert!(!quarantine.trapped(now) && !quarantine.trapped(now));
        assert!(quarantine.trapped(now));
        assert_eq!(quarantine.remaining(now), Some(FIRST_WAIT), "the wait is a short one again");
    }
}
