//! Growing delays for clients that ask again and again for a file that is not there and do not cache
//! its absence (paper §4.5).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hasp_proto::id::SessionId;
use hasp_proto::name::Name;
use hasp_proto::time::Time;

/// So many answers come at once.
const FREE: u32 = 8;
/// The first delay; doubles with each further try.
const DELAY: Duration = Duration::from_millis(50);
/// The longest.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// After so long without a try all is forgotten.
const MEMORY: Duration = Duration::from_secs(60);
/// Pairs of client and name that are remembered.
const PAIRS_MAX: usize = 16_384;

#[derive(Clone, Debug, Default)]
pub(super) struct Absences {
    tries: BTreeMap<(SessionId, Name), (u32, Time)>,
    /// In the order in which they were first tried.
    order: VecDeque<(SessionId, Name)>,
}

impl Absences {
    /// A client asks for a name that is not there. How long to keep it waiting.
    pub(super) fn delay(&mut self, now: Time, client: SessionId, name: &Name) -> Duration {
        let key = (client, name.clone());
        if !self.tries.contains_key(&key) {
            if self.order.len() >= PAIRS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.tries.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        let (tries, last) = self.tries.entry(key).or_insert((0, now));
        if now.saturating_since(*last) >= MEMORY {
            *tries = 0;
        }
        *tries += 1;
        *last = now;
        match tries.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(beyond) => DELAY.saturating_mul(2_u32.saturating_pow(beyond.min(16))).min(DELAY_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    fn name(component: &str) -> Name {
        Name::parse(&format!("/ls/dev/{component}")).expect("good")
    }

    #[test]
    fn the_delay_doubles_after_some_tries_up_to_a_bound_and_is_forgotten_after_a_minute() {
        let mut absences = Absences::default();
        let client = SessionId([1; 16]);
        let millis: Vec<_> = (0..20).map(|_| absences.delay(t(0), client, &name("f")).as_millis()).collect();

        assert_eq!(millis[..8], [0; 8]);
        assert_eq!(millis[8..12], [50, 100, 200, 400]);
        assert_eq!(millis[16..], [10_000; 4]);
        assert_eq!(absences.delay(t(0), client, &name("g")), Duration::ZERO, "another file");
        assert_eq!(absences.delay(t(0), SessionId([2; 16]), &name("f")), Duration::ZERO, "another client");
        assert_eq!(absences.delay(t(60), client, &name("f")), Duration::ZERO);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut absences = Absences::default();
        for number in 0..PAIRS_MAX + 5 {
            absences.delay(t(0), SessionId([1; 16]), &name(&number.to_string()));
        }
        assert_eq!((absences.tries.len(), absences.order.len()), (PAIRS_MAX, PAIRS_MAX));
    }
}
