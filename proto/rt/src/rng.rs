//! The one source of randomness, handed down from the top of the process.
//!
//! A [`Seeds`] makes independent streams by label. From the system's entropy in production, from a
//! number in tests and simulations, where the same number then gives the same run.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SysRng;
use rand::{RngExt as _, SeedableRng, TryCryptoRng, TryRng};
use rand_chacha::ChaCha12Rng;
use sha2::{Digest, Sha256};

/// Makes random streams that have nothing to do with one another.
///
/// A clone shares the count of what was handed out, so two parts that use the same label by
/// mistake still get different streams, and session keys never repeat.
#[derive(Clone)]
pub struct Seeds {
    key: [u8; 32],
    handed_out: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Seeds {
    /// Seeds that nobody can guess.
    ///
    /// # Errors
    /// If the system has no entropy to give; the process should not start.
    pub fn from_os() -> io::Result<Self> {
        let mut key = [0; 32];
        SysRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
        Ok(Self::from_key(key))
    }

    /// Seeds that give the same streams for the same number.
    pub fn from_seed(seed: u64) -> Self {
        let digest = Sha256::new().chain_update(b"hasp seed").chain_update(seed.to_be_bytes()).finalize();
        Self::from_key(digest.into())
    }

    fn from_key(key: [u8; 32]) -> Self {
        Self { key, handed_out: Arc::default() }
    }

    /// The next stream of that label: the n-th call with a label gives its n-th stream.
    ///
    /// A label names a place in the code or a configured server, not a client: each is remembered.
    pub fn stream(&self, label: &str) -> Rng {
        Rng(ChaCha12Rng::from_seed(self.derive(b"stream", label)))
    }

    /// Seeds of its own for one part of the process, such as one server of many.
    pub fn child(&self, label: &str) -> Seeds {
        Self::from_key(self.derive(b"child", label))
    }

    fn derive(&self, purpose: &[u8], label: &str) -> [u8; 32] {
        let count = self.count(purpose, label);
        Sha256::new()
            .chain_update(self.key)
            .chain_update(purpose)
            .chain_update(count.to_be_bytes())
            .chain_update(label)
            .finalize()
            .into()
    }

    fn count(&self, purpose: &[u8], label: &str) -> u64 {
        let name = format!("{} {label}", purpose.escape_ascii());
        let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        let count = handed_out.entry(name).or_default();
        *count += 1;
        *count
    }
}

/// A stream of random numbers, good enough for secrets.
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// Sixteen secret bytes, such as a session's key.
    pub fn random_16(&mut self) -> [u8; 16] {
        self.0.random()
    }

    /// A number from zero up to, not including, `bound`; zero if the bound is.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    /// Between a half and all of `duration`: for waits that should not fall together.
    pub fn jitter(&mut self, duration: Duration) -> Duration {
        let half = duration / 2;
        half + Duration::from_micros(self.below(hasp_proto::time::micros(half) + 1))
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(dst)
    }
}

impl TryCryptoRng for Rng {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_label_give_the_same_stream() {
        let mut first = Seeds::from_seed(7).stream("replica-1");
        let mut again = Seeds::from_seed(7).stream("replica-1");

        assert_eq!(first.random_16(), again.random_16());
    }

    #[test]
    fn the_order_in_which_streams_are_made_does_not_matter() {
        let (one, other) = (Seeds::from_seed(7), Seeds::from_seed(7));
        other.stream("replica-2");

        assert_eq!(one.stream("replica-1").random_16(), other.stream("replica-1").random_16());
    }

    #[test]
    fn streams_differ_by_seed_label_turn_and_child() {
        let seeds = Seeds::from_seed(7);
        let drawn = [
            seeds.stream("a").random_16(),
            seeds.stream("a").random_16(),
            seeds.stream("b").random_16(),
            seeds.child("a").stream("a").random_16(),
            seeds.clone().stream("a").random_16(),
            Seeds::from_seed(8).stream("a").random_16(),
            Seeds::from_os().unwrap().stream("a").random_16(),
        ];

        for (index, value) in drawn.iter().enumerate() {
            assert!(!drawn[index + 1..].contains(value));
        }
    }

    #[test]
    fn jitter_stays_between_a_half_and_the_whole() {
        let mut rng = Seeds::from_seed(1).stream("jitter");

        for _ in 0..1_000 {
            let wait = rng.jitter(Duration::from_millis(100));
            assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_millis(100));
        }
        assert_eq!(rng.below(0), 0);
    }
}
