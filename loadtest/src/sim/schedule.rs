//! What is going to happen, in the order of true time; at the same moment in the order of planning.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::clock::Moment;

/// The queue.
#[derive(Debug)]
pub struct Schedule<T> {
    planned: BinaryHeap<Planned<T>>,
    count: u64,
}

#[derive(Debug)]
struct Planned<T> {
    at: Moment,
    number: u64,
    what: T,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self { planned: BinaryHeap::new(), count: 0 }
    }
}

impl<T> Schedule<T> {
    /// Plans something.
    pub fn add(&mut self, at: Moment, what: T) {
        self.count += 1;
        self.planned.push(Planned { at, number: self.count, what });
    }

    /// What comes next, and when.
    pub fn take(&mut self) -> Option<(Moment, T)> {
        self.planned.pop().map(|planned| (planned.at, planned.what))
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Planned<T> {}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_comes_first_and_of_two_at_once_the_one_planned_first() {
        let mut schedule = Schedule::default();
        for (at, what) in [(5, 'b'), (9, 'd'), (5, 'c'), (1, 'a')] {
            schedule.add(Moment(at), what);
        }

        let order: String = std::iter::from_fn(|| schedule.take()).map(|(_, what)| what).collect();

        assert_eq!(order, "abcd");
    }
}
