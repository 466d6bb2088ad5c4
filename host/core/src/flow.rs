//! The flows own the steps and the `?`; what they call are straight lines.

pub mod admin;
pub mod again;
pub mod issue;
pub mod revoke;
pub mod session;

use crate::ports::Entropy;

fn random<const N: usize>(entropy: &impl Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Policies are loaded by people; two more tries outlast any reload.
const DECIDE_AGAIN_MAX: usize = 2;
