//! Trying again: how often, and how long to wait before.

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use async_trait::async_trait;
use datamesh_core::Result;

use super::TargetError;

/// Waiting and chance.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Waits.
    async fn sleep(&self, duration: Duration);
    /// A number at random, at least 0 and less than 1.
    fn random(&self) -> f64;
}

/// The runtime's timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioTimer;

#[async_trait]
impl Timer for TokioTimer {
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> f64 {
        // The standard library seeds each of these differently.
        let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How often something is tried, waiting a random part of an exponentially growing time ("full jitter"; Brooker,
/// *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, the first time included.
    pub attempts: u32,
    /// The longest first wait.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 8, base: Duration::from_millis(100), cap: Duration::from_secs(20) }
    }
}

impl Retry {
    /// How long to wait after `failures` failures.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let factor = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Does something again while it is throttled or without an answer.
    ///
    /// # Errors
    /// The last failure.
    pub async fn run<T, F>(&self, timer: &dyn Timer, mut call: impl FnMut() -> F) -> Result<T, TargetError>
    where
        F: Future<Output = Result<T, TargetError>>,
    {
        let mut failures = 0;
        loop {
            let result = call().await;
            if !matches!(result, Err(TargetError::Throttled(_) | TargetError::Unanswered(_))) {
                return result;
            }
            failures += 1;
            if failures >= self.attempts {
                return result;
            }
            timer.sleep(self.delay(failures, timer.random())).await;
        }
    }
}
