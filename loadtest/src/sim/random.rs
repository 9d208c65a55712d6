//! The one source of chance in a world: the same seed gives the same draws, on every machine.

use std::time::Duration;

/// A small generator (SplitMix64), good enough to draw faults and delays from.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The draws of that seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Independent draws, for a part of the world.
    pub fn child(&mut self) -> Self {
        Self::new(self.draw())
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `from`, less than `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        debug_assert!(from < to, "something to choose from");
        from + self.draw() % (to - from)
    }

    /// An index below `count`.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.draw() % count as u64).expect("below a usize")
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.draw() % 1_000 < per_mille
    }

    /// Between two numbers of milliseconds, to the microsecond.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.between(from * 1_000, to * 1_000))
    }

    /// Bytes for keys.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let draws = |seed| -> Vec<u64> {
            let mut random = Random::new(seed);
            (0..5).map(|_| random.between(10, 1_000)).collect()
        };

        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
    }
}
