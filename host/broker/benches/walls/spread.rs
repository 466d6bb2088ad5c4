//! Medians and quartiles. Measures nothing.

/// Where the values of some samples lie.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Half lie below.
    pub median: f64,
    /// A quarter lies below.
    pub low: f64,
    /// A quarter lies above.
    pub high: f64,
    /// One in a hundred lies above.
    pub p99: f64,
}

impl Spread {
    /// That of `samples`; `None` if there are none.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let last = samples.len().checked_sub(1)?;
            samples.get((last * percent).div_ceil(100)).copied()
        };
        Some(Self { median: at(50)?, low: at(25)?, high: at(75)?, p99: at(99)? })
    }

    /// All of it, as numbers to check.
    pub const fn values(&self) -> [f64; 4] {
        [self.median, self.low, self.high, self.p99]
    }
}
