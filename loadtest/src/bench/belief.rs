//! What a session of a benchmark believes the contents of its file to be.
//!
//! Pure. It keeps a generation instead of contents, of one file, and goes by the rules of every cache:
//! only what it was given leave to cache, and nothing that an invalidation has overtaken (`cache-3`).

use hasp_proto::id::Generation;
use hasp_proto::item::ItemKind;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Reply};

/// The belief, good while the session's cache lease is.
#[derive(Debug, Default)]
pub(super) struct Belief {
    cached: Option<Generation>,
    /// What is not newer than this may not be cached any more.
    floor: Option<Position>,
}

impl Belief {
    pub(super) const fn cached(&self) -> Option<Generation> {
        self.cached
    }

    /// An answer came: kept, if it brought contents that may be.
    pub(super) fn learn(&mut self, answer: &Answer) {
        if let (Ok(Reply::Contents { stat, .. }), Some(position)) = (&answer.result, &answer.position)
            && answer.caches.contains(ItemKind::Data)
            && self.floor.as_ref().is_none_or(|floor| floor.is_before(position))
        {
            self.cached = Some(stat.content_generation);
        }
    }

    /// The file is about to change.
    pub(super) fn invalidate(&mut self, floor: Position) {
        self.cached = None;
        self.floor = Some(floor);
    }

    /// Nothing that was cached is good any more.
    pub(super) const fn forget(&mut self) {
        self.cached = None;
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::{CellName, Epoch, Instance, RequestNumber};
    use hasp_proto::item::ItemKinds;
    use hasp_proto::node::{AclNames, NodeKind, Stat};

    use super::*;

    fn position(index: u64) -> Position {
        Position { cell: CellName::new("a"), epoch: Epoch(1), index }
    }

    fn read(generation: u64, index: u64, caches: ItemKinds) -> Answer {
        let stat = Stat {
            kind: NodeKind::File,
            instance: Instance(1),
            content_generation: Generation(generation),
            lock_generation: Generation(0),
            acl_generation: Generation(1),
            checksum: 0,
            length: 0,
            ephemeral: false,
            acls: AclNames::default(),
        };
        let result = Ok(Reply::Contents { contents: "x".into(), stat });
        Answer { number: RequestNumber(1), position: Some(position(index)), caches, result }
    }

    #[test]
    fn only_what_may_be_cached_is_believed_in() {
        let mut belief = Belief::default();

        belief.learn(&read(1, 10, ItemKinds::of([ItemKind::Lock, ItemKind::Acl])));
        assert_eq!(belief.cached(), None);

        belief.learn(&read(1, 10, ItemKinds::of([ItemKind::Data])));
        assert_eq!(belief.cached(), Some(Generation(1)));
        belief.forget();
        assert_eq!(belief.cached(), None);
    }

    #[test]
    fn an_answer_that_an_invalidation_has_overtaken_is_not_believed_in() {
        let mut belief = Belief::default();
        belief.learn(&read(1, 10, ItemKinds::of([ItemKind::Data])));

        belief.invalidate(position(20));
        assert_eq!(belief.cached(), None);
        belief.learn(&read(1, 20, ItemKinds::of([ItemKind::Data])));
        assert_eq!(belief.cached(), None);

        belief.learn(&read(2, 21, ItemKinds::of([ItemKind::Data])));
        assert_eq!(belief.cached(), Some(Generation(2)));
    }
}
