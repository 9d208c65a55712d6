//! Reads of the same thing for the same principal that come while one is under way: they wait, and share
//! one that is asked after they have come (`cache-5`). Joining the one under way would be wrong: the cell
//! may have answered it before a write that these readers know to be done.
//!
//! ```text
//! nothing under way -- first reader --> under way, nobody waits -- reader --> under way, some wait
//!     ^---- answered, nobody waits ----------'  ^--- answered: those that wait share the next ---'
//! ```

use std::collections::BTreeMap;

use hasp_proto::id::{CellName, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::request::Request;

use crate::upstream::Ticket;

/// What is read: two reads of the same can share an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) cell: CellName,
    /// As whom: what the cell refuses to one it may tell to another.
    pub(super) principal: String,
    pub(super) name: Name,
    pub(super) part: Part,
}

/// Which part of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// What an `Open` for reading says of it.
    Open,
    Contents(Instance),
    Stat(Instance),
    Children(Instance),
}

/// Somebody who asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reader {
    /// Who is answered: a client, or the proxy that it is behind.
    pub(super) session: SessionId,
    pub(super) request: Request,
    /// It is asked above for others too, one of whom may have seen elsewhere what is newer (P-MONO).
    pub(super) needs_the_cell: bool,
}

impl Reader {
    pub(super) const fn new(session: SessionId, request: Request) -> Self {
        Self { session, request, needs_the_cell: false }
    }

    /// Whose handles it shows.
    pub(super) fn client(&self) -> SessionId {
        self.request.on_behalf.as_ref().map_or(self.session, |client| client.session)
    }

    /// The client's own number of the request.
    pub(super) fn number(&self) -> RequestNumber {
        self.request.on_behalf.as_ref().map_or(self.request.number, |client| client.number)
    }
}

/// A read under way.
#[derive(Clone, Debug)]
struct Flying {
    ticket: Ticket,
    /// Came before it was asked: its answer is theirs too.
    riders: Vec<Reader>,
    /// Came since.
    waiting: Vec<Reader>,
}

/// What came of a read that was under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Landed {
    pub(super) target: Target,
    pub(super) riders: Vec<Reader>,
    pub(super) waiting: Vec<Reader>,
}

/// All reads that can be shared. As many readers as sessions have requests in flight, which is bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    flying: BTreeMap<Target, Flying>,
    targets: BTreeMap<Ticket, Target>,
    readers: BTreeMap<(SessionId, RequestNumber), Target>,
}

impl Reads {
    /// Lets a reader wait for the read after the one that is under way; gives it back if there is none.
    pub(super) fn join(&mut self, target: &Target, reader: Reader) -> Option<Reader> {
        let Some(flying) = self.flying.get_mut(target) else { return Some(reader) };
        self.readers.insert((reader.session, reader.request.number), target.clone());
        flying.waiting.push(reader);
        None
    }

    /// A read of `target` was asked, for these besides the one in whose name it was.
    pub(super) fn ask(&mut self, target: Target, ticket: Ticket, riders: Vec<Reader>) {
        for rider in &riders {
            self.readers.insert((rider.session, rider.request.number), target.clone());
        }
        self.targets.insert(ticket, target.clone());
        let before = self.flying.insert(target, Flying { ticket, riders, waiting: Vec::new() });
        assert!(before.is_none(), "cache-5: one read of a thing at a time is under way");
    }

    /// A read was answered; `None` if it was none that can be shared.
    pub(super) fn land(&mut self, ticket: Ticket) -> Option<Landed> {
        let target = self.targets.remove(&ticket)?;
        let Flying { riders, waiting, .. } = self.flying.remove(&target)?;
        for reader in riders.iter().chain(&waiting) {
            self.readers.remove(&(reader.session, reader.request.number));
        }
        Some(Landed { target, riders, waiting })
    }

    /// Somebody no longer waits; whether it did.
    pub(super) fn cancel(&mut self, session: SessionId, number: RequestNumber) -> bool {
        let Some(target) = self.readers.remove(&(session, number)) else { return false };
        if let Some(flying) = self.flying.get_mut(&target) {
            let is_other = |reader: &Reader| (reader.session, reader.request.number) != (session, number);
            flying.riders.retain(is_other);
            flying.waiting.retain(is_other);
        }
        true
    }

    /// A session is gone: it waits for nothing any more.
    pub(super) fn forget(&mut self, session: SessionId) {
        let all = (session, RequestNumber(0))..=(session, RequestNumber(u64::MAX));
        let numbers: Vec<_> = self.readers.range(all).map(|((_, number), _)| *number).collect();
        for number in numbers {
            self.cancel(session, number);
        }
    }

    /// How many wait for an answer that is not asked in their own name.
    pub(super) fn len(&self) -> usize {
        self.readers.len()
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.flying.len(), self.targets.len(), "every read under way has its ticket");
        for (target, flying) in &self.flying {
            assert_eq!(self.targets.get(&flying.ticket), Some(target), "of this target");
        }
        let readers: usize =
            self.flying.values().map(|flying| flying.riders.len() + flying.waiting.len()).sum();
        assert_eq!(readers, self.readers.len(), "whoever waits is listed once");
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::handle::HandleToken;
    use hasp_proto::request::Op;

    use super::*;

    const S1: SessionId = SessionId([1; 16]);
    const S2: SessionId = SessionId([2; 16]);

    fn target() -> Target {
        let name = Name::parse("/ls/dev/f").expect("good");
        let principal = "alice".to_owned();
        Target { cell: CellName::new("a"), principal, name, part: Part::Stat(Instance(1)) }
    }

    fn reader(session: SessionId, number: u64) -> Reader {
        let op = Op::GetStat(HandleToken::new(bytes::Bytes::new()));
        let number = RequestNumber(number);
        let request = Request {
            number,
            settled_below: number,
            on_behalf: None,
            guard: None,
            caches: true,
            trace: None,
            op,
        };
        Reader::new(session, request)
    }

    #[test]
    fn readers_that_come_while_a_read_is_under_way_share_the_next_one() {
        let mut reads = Reads::default();
        assert_eq!(reads.join(&target(), reader(S1, 1)), Some(reader(S1, 1)), "nothing to wait for");
        reads.ask(target(), Ticket(1), Vec::new());

        assert_eq!(reads.join(&target(), reader(S1, 2)), None);
        assert_eq!(reads.join(&target(), reader(S2, 1)), None);
        reads.check_invariants();
        let landed = reads.land(Ticket(1)).expect("it was under way");

        assert!(landed.riders.is_empty(), "nobody came before it was asked");
        assert_eq!(landed.waiting, [reader(S1, 2), reader(S2, 1)]);
        assert_eq!((reads.land(Ticket(1)), reads.len()), (None, 0));
    }

    #[test]
    fn whoever_was_there_when_it_was_asked_rides_and_others_wait_on() {
        let mut reads = Reads::default();
        reads.ask(target(), Ticket(2), vec![reader(S1, 1)]);
        reads.join(&target(), reader(S2, 1));

        let landed = reads.land(Ticket(2)).expect("it was under way");

        assert_eq!((landed.riders, landed.waiting), (vec![reader(S1, 1)], vec![reader(S2, 1)]));
    }

    #[test]
    fn whoever_cancels_or_is_gone_waits_no_longer_and_holds_up_nobody() {
        let mut reads = Reads::default();
        reads.ask(target(), Ticket(1), vec![reader(S1, 1), reader(S2, 1)]);
        reads.join(&target(), reader(S1, 2));
        reads.join(&target(), reader(S2, 2));

        assert!(reads.cancel(S1, RequestNumber(1)));
        assert!(!reads.cancel(S1, RequestNumber(1)), "once");
        reads.check_invariants();
        reads.forget(S2);
        reads.check_invariants();

        let landed = reads.land(Ticket(1)).expect("it is still under way");
        assert_eq!((landed.riders, landed.waiting), (vec![], vec![reader(S1, 2)]));
    }
}
