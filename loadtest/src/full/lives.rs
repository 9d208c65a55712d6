//! What must hold of names that come and go: created, deleted, listed.
//!
//! Pure, like [`history`](super::history). Instances of a name are told apart by their numbers.

use std::collections::BTreeMap;

use hasp_proto::position::Position;

use super::history::{Broken, Floors, Moment};

/// Something that a client did to a name.
#[derive(Clone, Debug)]
pub struct Life {
    /// Who.
    pub client: usize,
    /// The directory's full name.
    pub directory: String,
    /// Which of the directories of that name.
    pub within: u64,
    /// The name's last component.
    pub name: String,
    /// What.
    pub deed: Deed,
    /// Which of the nodes of that name; of a creation known only with the answer.
    pub instance: Option<u64>,
    /// When it was asked for.
    pub begun: Moment,
    /// When it was acknowledged, and where it took effect.
    pub done: Option<(Moment, Position)>,
    /// The service says that it had no effect.
    pub is_refused: bool,
    /// Of an ephemeral node that was created: until then its maker had it open, under a session that it had no reason to
    /// doubt. `None`: to the end of the run.
    pub believed_until: Option<Moment>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Created, to stay.
    Create,
    /// Created, to go with its maker's handle.
    CreateEphemeral,
    /// Deleted.
    Delete,
}

/// What a directory showed.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Who looked.
    pub client: usize,
    /// The directory's full name.
    pub directory: String,
    /// Which of the directories of that name.
    pub within: u64,
    /// When it was asked for.
    pub begun: Moment,
    /// When it was answered.
    pub ended: Moment,
    /// What the answer reflects.
    pub position: Position,
    /// Last components, with their instances.
    pub children: BTreeMap<String, u64>,
}

/// P-LIN, P-DUR, P-ONCE, P-SEQ for names: instances of a name grow, a listing shows what was created before it and not
/// deleted before it, by position in one cell and by time, and nothing else. A directory that was deleted was empty, and nothing was
/// made in it afterwards, wherever its children were (`route-4`).
///
/// # Errors
/// What is broken.
pub fn check_lives(lives: &[Life], listings: &[Listing]) -> Result<(), Broken> {
    check_instances(lives)?;
    let mut within: BTreeMap<(&str, u64), Vec<&Life>> = BTreeMap::new();
    for life in lives {
        within.entry((&life.directory, life.within)).or_default().push(life);
    }
    for listing in listings {
        let lives = within.get(&(listing.directory.as_str(), listing.within)).map_or(&[][..], Vec::as_slice);
        for life in lives.iter().filter(|life| life.done.is_some()) {
            check_shown(life, lives, listing)
                .map_err(|why| format!("{listing:?} does not agree with {life:?}: {why}"))?;
        }
        check_invented(lives, listing)?;
    }
    for deleted in lives.iter().filter(|life| life.deed == Deed::Delete && life.done.is_some()) {
        let Some(instance) = deleted.instance else { continue };
        let directory = format!("{}/{}", deleted.directory, deleted.name);
        let children = within.get(&(directory.as_str(), instance)).map_or(&[][..], Vec::as_slice);
        check_emptied(deleted, children)?;
    }
    Ok(())
}

/// Whatever stays was deleted before its directory, and nothing came later.
fn check_emptied(deleted: &Life, children: &[&Life]) -> Result<(), Broken> {
    let Some((ended, _)) = deleted.done else { return Ok(()) };
    for child in children.iter().filter(|child| child.deed != Deed::Delete) {
        let Some((created, _)) = child.done else { continue };
        if child.begun > ended {
            return Err(format!("{child:?} was created in a directory after {deleted:?}"));
        }
        let is_kept = child.believed_until.is_none_or(|until| until > ended);
        let stays = child.deed == Deed::Create || is_kept;
        let may_be_gone = children.iter().any(|other| {
            other.deed == Deed::Delete
                && other.name == child.name
                && other.instance == child.instance
                && !other.is_refused
                && other.begun <= ended
        });
        if stays && !may_be_gone && created < deleted.begun {
            return Err(format!("{deleted:?} took {child:?} with it"));
        }
    }
    Ok(())
}

/// A later creation of the same name has a greater instance.
fn check_instances(lives: &[Life]) -> Result<(), Broken> {
    let mut created: BTreeMap<(&str, &str), Vec<Created<'_>>> = BTreeMap::new();
    for life in lives.iter().filter(|life| life.deed != Deed::Delete) {
        let (Some(instance), Some((ended, position))) = (life.instance, &life.done) else { continue };
        let name = (life.directory.as_str(), life.name.as_str());
        created.entry(name).or_default().push(Created {
            instance,
            begun: life.begun,
            ended: *ended,
            position,
        });
    }
    for ((directory, name), mut created) in created {
        created.sort_by_key(|created| created.instance);
        check_created(&created).map_err(|broken| format!("{directory}/{name}: {broken}"))?;
    }
    Ok(())
}

/// A node that came into being.
struct Created<'a> {
    instance: u64,
    begun: Moment,
    ended: Moment,
    position: &'a Position,
}

/// By position in each cell, and by time wherever they were created.
fn check_created(created: &[Created<'_>]) -> Result<(), Broken> {
    let mut floors = Floors::default();
    for next in created {
        let Created { instance, position, .. } = next;
        floors.rise(*instance, position).map_err(|(before, at)| {
            format!("instance {before} was created at {at}, {instance} at {position}")
        })?;
    }
    for pair in created.windows(2) {
        let [one, next] = pair else { unreachable!("windows of two") };
        if one.instance == next.instance || next.ended < one.begun {
            let (before, at) = (one.instance, one.begun);
            let Created { instance, ended, .. } = next;
            return Err(format!("instance {before} was created after {at}, {instance} before {ended}"));
        }
    }
    Ok(())
}

fn check_shown(life: &Life, lives: &[&Life], listing: &Listing) -> Result<(), String> {
    let Some((ended, _)) = &life.done else { return Ok(()) };
    let reflected = is_reflected(life, listing);
    let (is_before, is_after) = (reflected == Some(true), reflected == Some(false));
    if *ended < listing.begun && !is_before {
        return Err("it was done before, and is not reflected".into());
    }
    let shown = listing.children.get(&life.name).copied();
    let is_shown = shown.is_some() && shown == life.instance;
    match life.deed {
        Deed::Delete if is_before && is_shown => Err("shown after it was deleted".into()),
        Deed::Create | Deed::CreateEphemeral if is_after && is_shown => {
            Err("shown before it was created".into())
        }
        Deed::Create if is_before && !is_shown && !may_be_deleted(life, lives, listing) => Err("lost".into()),
        Deed::CreateEphemeral
            if is_before
                && !is_shown
                && life.believed_until.is_none_or(|until| until > listing.ended)
                && !may_be_deleted(life, lives, listing) =>
        {
            Err("gone while its maker had it open".into())
        }
        Deed::Create | Deed::CreateEphemeral | Deed::Delete => Ok(()),
    }
}

/// Whether a listing shows what there was once it was done: by position in one cell; in two by time, if that tells. That it
/// was done at all is not known of what was not answered.
fn is_reflected(life: &Life, listing: &Listing) -> Option<bool> {
    let (ended, position) = life.done.as_ref()?;
    if position.cell == listing.position.cell {
        return Some(!listing.position.is_before(position));
    }
    let is_before = *ended < listing.begun;
    (is_before || life.begun > listing.ended).then_some(is_before)
}

/// Whether somebody asked for its end who may have had it before the listing.
fn may_be_deleted(life: &Life, lives: &[&Life], listing: &Listing) -> bool {
    lives.iter().any(|other| {
        other.deed == Deed::Delete
            && other.name == life.name
            && other.instance == life.instance
            && !other.is_refused
            && other.begun <= listing.ended
            && is_reflected(other, listing) != Some(false)
    })
}

/// What is shown was created, perhaps by somebody who was not told.
fn check_invented(lives: &[&Life], listing: &Listing) -> Result<(), Broken> {
    for (name, instance) in &listing.children {
        let is_known = lives.iter().any(|life| {
            life.deed != Deed::Delete
                && life.name == *name
                && !life.is_refused
                && life.begun <= listing.ended
                && life.instance.is_none_or(|created| created == *instance)
        });
        if !is_known {
            return Err(format!("{listing:?}: nobody created {name} with instance {instance}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::{CellName, Epoch};

    use super::*;

    fn at(index: u64) -> Position {
        Position { cell: CellName::new("a"), epoch: Epoch(1), index }
    }

    fn life(deed: Deed, instance: u64, done: Option<u64>) -> Life {
        Life {
            client: 1,
            directory: "/ls/dev/d".into(),
            within: 1,
            name: "c".into(),
            deed,
            instance: Some(instance),
            begun: Moment(0),
            done: done.map(|index| (Moment(index), at(index))),
            is_refused: false,
            believed_until: None,
        }
    }

    fn listing(index: u64, instance: Option<u64>) -> Listing {
        let children = instance.map(|instance| ("c".to_owned(), instance)).into_iter().collect();
        Listing {
            client: 2,
            directory: "/ls/dev/d".into(),
            within: 1,
            begun: Moment(index),
            ended: Moment(index + 1),
            position: at(index),
            children,
        }
    }

    fn check(lives: &[Life], listing: Listing, expected: Option<&str>) {
        match (check_lives(lives, &[listing]), expected) {
            (Ok(()), None) => {}
            (Err(broken), Some(expected)) => assert!(broken.contains(expected), "{broken}"),
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn what_was_created_is_shown_until_somebody_deletes_it() {
        let created = [life(Deed::Create, 7, Some(10))];
        check(&created, listing(20, Some(7)), None);
        check(&created, listing(20, None), Some("lost"));
        check(&created, listing(5, None), None);
        check(&created, listing(5, Some(7)), Some("shown before"));

        let deleted = [life(Deed::Create, 7, Some(10)), life(Deed::Delete, 7, Some(15))];
        check(&deleted, listing(20, None), None);
        check(&deleted, listing(20, Some(7)), Some("shown after it was deleted"));
        check(&deleted, listing(12, Some(7)), None);
        check(&deleted, listing(12, None), Some("lost"));

        let perhaps = [life(Deed::Create, 7, Some(10)), life(Deed::Delete, 7, None)];
        check(&perhaps, listing(20, None), None);
        check(&perhaps, listing(20, Some(7)), None);
    }

    #[test]
    fn an_ephemeral_node_stays_as_long_as_its_maker_has_it_open() {
        let mut ephemeral = life(Deed::CreateEphemeral, 7, Some(10));
        check(&[ephemeral.clone()], listing(20, None), Some("gone while its maker had it open"));

        ephemeral.believed_until = Some(Moment(15));
        check(&[ephemeral], listing(20, None), None);
    }

    #[test]
    fn a_listing_that_is_older_than_what_was_done_before_it_is_stale() {
        let mut stale = listing(5, None);
        stale.begun = Moment(30);
        check(&[life(Deed::Create, 7, Some(10))], stale, Some("is not reflected"));
    }

    #[test]
    fn nothing_is_shown_that_nobody_created_and_no_instance_comes_twice() {
        check(&[], listing(20, Some(8)), Some("nobody created"));
        let unanswered = Life { instance: None, ..life(Deed::Create, 0, None) };
        check(&[unanswered], listing(20, Some(8)), None);

        let twice = [life(Deed::Create, 7, Some(10)), life(Deed::Create, 7, Some(12))];
        check(&twice, listing(20, Some(7)), Some("instance 7 was created"));
    }

    #[test]
    fn a_directory_of_the_same_name_is_another() {
        let created = life(Deed::Create, 7, Some(10));
        let other = Listing { within: 2, ..listing(20, None) };
        check(std::slice::from_ref(&created), other, None);
        check(&[created], Listing { within: 2, ..listing(20, Some(7)) }, Some("nobody created"));
    }

    #[test]
    fn a_directory_is_deleted_only_when_it_is_empty() {
        let created = life(Deed::Create, 7, Some(10));
        let directory = Life {
            directory: "/ls/dev".into(),
            name: "d".into(),
            instance: Some(1),
            within: 0,
            begun: Moment(12),
            done: Some((Moment(20), at(20))),
            ..life(Deed::Delete, 1, None)
        };
        let elsewhere = || Listing { within: 3, ..listing(30, None) };
        check(&[created.clone(), directory.clone()], elsewhere(), Some("took"));
        let deleted = Life { begun: Moment(11), ..life(Deed::Delete, 7, None) };
        check(&[created.clone(), deleted, directory.clone()], elsewhere(), None);

        let late = Life { begun: Moment(21), done: Some((Moment(25), at(25))), ..created };
        check(&[late, directory.clone()], elsewhere(), Some("after"));
        let at_once = Life { begun: Moment(15), ..life(Deed::Create, 7, Some(18)) };
        check(&[at_once, directory], elsewhere(), None);
    }

    #[test]
    fn what_was_done_in_another_cell_is_shown_if_it_was_done_before() {
        let in_b = |index| Position { cell: CellName::new("b"), ..at(index) };
        let there = |begun, ended| Life {
            begun: Moment(begun),
            done: Some((Moment(ended), in_b(1_000))),
            ..life(Deed::Create, 7, None)
        };
        check(&[there(0, 10)], listing(20, None), Some("lost"));
        check(&[there(0, 10)], listing(20, Some(7)), None);
        check(&[there(22, 30)], listing(20, Some(7)), Some("shown before"));
        for shown in [None, Some(7)] {
            check(&[there(15, 30)], listing(20, shown), None);
        }
        let deleted = Life { deed: Deed::Delete, ..there(12, 15) };
        check(&[there(0, 10), deleted.clone()], listing(20, Some(7)), Some("shown after it was deleted"));
        check(&[there(0, 10), deleted], listing(20, None), None);

        let again = |instance| Life {
            begun: Moment(20),
            instance: Some(instance),
            ..life(Deed::Create, 0, Some(30))
        };
        check(&[there(0, 10), again(8)], listing(40, Some(8)), Some("lost"));
        check(&[there(0, 10), again(6)], listing(40, Some(6)), Some("instance 6 was created after 20 ms"));
    }
}
