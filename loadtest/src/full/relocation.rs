//! What becomes of the partition map while clients are at work, and what must hold of where they are answered.
//!
//! Pure, like [`history`](super::history).

use std::time::Duration;

use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;

use super::history::{Answer, Broken, Moment, Operation};
use super::journal::Pages;
use super::lives::{Life, Listing};

/// One change of the map, as the operator knows it who has asked for it.
#[derive(Clone, Debug)]
pub struct Relocation {
    /// The map with the change under way.
    pub changing: PartitionMap,
    /// Before it was written.
    pub begun: Moment,
    /// The operator has decided to take it back, if it is not done by then.
    pub is_recalled: bool,
    /// When the operator heard that it is over.
    pub ended: Option<(Moment, Outcome)>,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What it concerns is in its new cells.
    Done,
    /// It stays where it was.
    GivenUp,
}

impl Relocation {
    /// Whether it is done, and something went from one cell to another.
    pub fn is_done(&self) -> bool {
        self.has_ended(Outcome::Done) && !self.changing.journeys().is_empty()
    }

    /// Whether it ended so.
    pub fn has_ended(&self, wanted: Outcome) -> bool {
        self.ended.is_some_and(|(_, outcome)| outcome == wanted)
    }

    /// Whether something went wrong, or was not mended, while it was under way.
    pub fn is_troubled(&self, troubles: &[(Duration, Duration)]) -> bool {
        let millis = |at: Duration| Moment(u64::try_from(at.as_millis()).expect("runs last minutes"));
        let (begun, ended) = (self.begun, self.ended.map(|(at, _)| at));
        troubles
            .iter()
            .any(|(from, until)| ended.is_none_or(|ended| millis(*from) <= ended) && begun <= millis(*until))
    }

    /// The map that may hold from its beginning on.
    fn next(&self) -> PartitionMap {
        match (self.ended, self.changing.after()) {
            (None | Some((_, Outcome::Done)), Some(after)) => after.clone(),
            (_, Some(_) | None) => self.changing.unchanged(),
        }
    }
}

/// The maps of a run, each with when it may have held somewhere.
pub struct Reigns(Vec<Reign>);

struct Reign {
    map: PartitionMap,
    from: Moment,
    until: Option<Moment>,
}

impl Reigns {
    /// Of a run that began with one map, and whose changes followed one another.
    pub fn of(founded: &PartitionMap, relocations: &[Relocation]) -> Self {
        let until = |at: usize| relocations.get(at)?.ended.map(|(ended, _)| ended);
        let first = Reign { map: founded.clone(), from: Moment(0), until: until(0) };
        let later = relocations.iter().enumerate().map(|(at, relocation)| Reign {
            map: relocation.next(),
            from: relocation.begun,
            until: until(at + 1),
        });
        Self(std::iter::once(first).chain(later).collect())
    }

    /// Those that may have held at some time between the two moments.
    pub fn between(&self, begun: Moment, ended: Moment) -> impl Iterator<Item = &PartitionMap> {
        let holds =
            move |reign: &&Reign| reign.from <= ended && reign.until.is_none_or(|until| until >= begun);
        self.0.iter().filter(holds).map(|reign| &reign.map)
    }
}

/// `move-2`, `move-4`: whoever is answered is so by a cell that had the name at some time between the question and the
/// answer. While a change is under way that may be the one before or the one after.
///
/// # Errors
/// What is broken.
pub fn check_owners(founded: &PartitionMap, pages: &Pages) -> Result<(), Broken> {
    let reigns = Reigns::of(founded, &pages.relocations);
    let check = |asked: &Asked<'_>| {
        let mut owners = reigns.between(asked.begun, asked.ended).map(|map| asked.owner(map));
        if owners.any(|owner| owner.as_ref() == Some(&asked.position.cell)) {
            return Ok(());
        }
        let Asked { name, position, begun, ended, .. } = asked;
        Err(format!("{name}: answered at {position} between {begun} and {ended}, when it was elsewhere"))
    };
    let listings = pages.listings.iter().map(Asked::of_listing);
    let lives = pages.lives.iter().filter_map(Asked::of_life);
    pages
        .operations
        .iter()
        .filter_map(Asked::of)
        .chain(lives)
        .chain(listings)
        .try_for_each(|asked| check(&asked))
}

/// That somebody was answered.
struct Asked<'a> {
    name: String,
    /// Not the node, but what is in it.
    is_listing: bool,
    position: &'a Position,
    begun: Moment,
    ended: Moment,
}

impl<'a> Asked<'a> {
    fn of(operation: &'a Operation) -> Option<Self> {
        let (ended, Answer::Read { position, .. } | Answer::Written { position, .. }) =
            operation.end.as_ref()?
        else {
            return None;
        };
        let name = operation.file.to_owned();
        Some(Self { name, is_listing: false, position, begun: operation.begun, ended: *ended })
    }

    fn of_life(life: &'a Life) -> Option<Self> {
        let (ended, position) = life.done.as_ref()?;
        let name = format!("{}/{}", life.directory, life.name);
        Some(Self { name, is_listing: false, position, begun: life.begun, ended: *ended })
    }

    fn of_listing(listing: &'a Listing) -> Self {
        let Listing { directory, position, begun, ended, .. } = listing;
        Self { name: directory.clone(), is_listing: true, position, begun: *begun, ended: *ended }
    }

    fn owner(&self, map: &PartitionMap) -> Option<CellName> {
        let name = Name::parse(&self.name).expect("a good name");
        if self.is_listing { map.children_owner(&name) } else { map.owner(&name) }.cloned()
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::Epoch;
    use hasp_proto::partition::{Change, Prefix};

    use super::super::history::Call;
    use super::super::layout::{Shape, Spread};
    use super::*;

    const MOVED: &str = "/ls/dev/b/f";

    fn founded() -> PartitionMap {
        Shape { spread: Spread::Prefix, ..Shape::of(3, 1) }.map()
    }

    /// What is below `/ls/dev/b` goes to the first cell between 100 and 200.
    fn relocation(outcome: Outcome) -> Relocation {
        let prefix = Prefix::parse("/ls/dev/b").expect("good");
        let change = Change { prefix, cells: vec![CellName::new("a")] };
        let changing = founded().changing(change).expect("a good change");
        Relocation { changing, begun: Moment(100), is_recalled: false, ended: Some((Moment(200), outcome)) }
    }

    fn check(relocation: &Relocation, cell: &str, begun: u64, ended: u64, is_right: bool) {
        let position = Position { cell: CellName::new(cell), epoch: Epoch(1), index: 1 };
        let answer = Answer::Read { contents: String::new(), generation: 1, position };
        let end = Some((Moment(ended), answer));
        let operation = Operation { client: 1, file: MOVED, call: Call::Read, begun: Moment(begun), end };
        let relocations = vec![relocation.clone()];
        let mut pages = Pages::default();
        (pages.operations, pages.relocations) = (vec![operation], relocations);
        let result = check_owners(&founded(), &pages);
        assert_eq!(result.is_ok(), is_right, "{cell} {begun} to {ended}: {result:?}");
    }

    #[test]
    fn an_answer_comes_from_a_cell_that_has_the_name_meanwhile() {
        let done = relocation(Outcome::Done);
        check(&done, "b", 10, 20, true);
        check(&done, "a", 10, 99, false);
        check(&done, "a", 10, 100, true);
        check(&done, "b", 200, 210, true);
        check(&done, "b", 201, 210, false);
        check(&done, "a", 201, 210, true);

        let given_up = relocation(Outcome::GivenUp);
        check(&given_up, "b", 201, 210, true);
        check(&given_up, "a", 120, 210, false);

        let open = Relocation { ended: None, ..done };
        check(&open, "b", 500, 510, true);
        check(&open, "a", 500, 510, true);
    }

    #[test]
    fn a_move_is_one_in_trouble_if_they_overlap() {
        let is_troubled = |from, until| {
            let span = (Duration::from_millis(from), Duration::from_millis(until));
            relocation(Outcome::Done).is_troubled(&[span])
        };
        assert!(!is_troubled(10, 99));
        assert!(is_troubled(10, 100) && is_troubled(120, 130) && is_troubled(200, 300));
        assert!(!is_troubled(201, 300));
    }
}
