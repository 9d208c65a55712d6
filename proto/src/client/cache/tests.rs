//! The rules of the cache one by one. That they suffice together is shown by the model.

use crate::handle::{HandleBody, HandleKey};
use crate::id::{Generation, RequestNumber, SessionId};
use crate::node::NodeKind;
use crate::request::Use;

use super::floors::FLOORS_MAX;
use super::*;

const ME: &str = "me";

fn name(text: &str) -> Name {
    Name::parse(text).expect("good")
}

fn file() -> Name {
    name("/ls/dev/f")
}

fn at(index: u64) -> Position {
    Position { cell: CellName::new("a"), epoch: Epoch(1), index }
}

fn stat(instance: u64) -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(instance),
        content_generation: Generation(1),
        lock_generation: Generation(7),
        acl_generation: Generation(1),
        checksum: 0,
        length: 5,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

fn all() -> ItemKinds {
    ItemKinds::of(ItemKind::ALL)
}

fn answer(position: Position, caches: ItemKinds, result: Result<Reply, ErrorCode>) -> Answer {
    let result = result.map_err(|code| code.because("so it is"));
    Answer { position: Some(position), caches, ..Answer::plain(RequestNumber(1), result) }
}

fn contents(position: Position, caches: ItemKinds) -> Answer {
    let contents = Bytes::from_static(b"hello");
    answer(position, caches, Ok(Reply::Contents { contents, stat: stat(1) }))
}

fn absent(position: Position) -> Answer {
    answer(position, all(), Err(ErrorCode::NotFound))
}

/// A cache that holds the file's contents, read at index 5.
fn filled() -> Cache {
    let mut cache = Cache::new(CACHE_BYTES);
    assert_eq!(
        fill(&mut cache, &contents(at(5), all())),
        kinds(&[ItemKind::Data, ItemKind::Lock, ItemKind::Acl])
    );
    cache
}

fn kinds(kinds: &[ItemKind]) -> ItemKinds {
    ItemKinds::of(kinds.iter().copied())
}

fn fill(cache: &mut Cache, answer: &Answer) -> ItemKinds {
    let ticket = cache.ticket(file(), None);
    let kept = cache.fill(ticket, ME, answer);
    cache.check_invariants();
    kept
}

fn item(name: &str, kind: ItemKind) -> Item {
    Item::new(self::name(name), kind)
}

fn invalidate(cache: &mut Cache, item: Item, index: u64) {
    cache.invalidate(&[item], &at(index));
    cache.check_invariants();
}

#[test]
fn what_may_be_kept_is_found_again_with_the_position_where_it_was_read() {
    let mut cache = filled();

    let hit = cache.contents(&file(), Some(Instance(1)), ME).expect("kept");

    assert_eq!(hit.position, at(5));
    assert_eq!(hit.value, (Bytes::from_static(b"hello"), stat(1)));
    assert_eq!(cache.stat(&file(), None, ME).map(|hit| hit.value), Some(stat(1)));
}

#[test]
fn what_may_not_be_kept_is_not() {
    for without in [ItemKind::Data, ItemKind::Lock, ItemKind::Acl] {
        let mut cache = Cache::new(CACHE_BYTES);
        let caches = ItemKinds::of(ItemKind::ALL.into_iter().filter(|kind| *kind != without));

        let kept = fill(&mut cache, &contents(at(5), caches));

        assert!(!kept.contains(without), "{without:?}");
        assert_eq!(cache.contents(&file(), None, ME), None, "{without:?}");
        assert_eq!(cache.stat(&file(), None, ME), None, "{without:?}");
    }
    let mut cache = Cache::new(CACHE_BYTES);
    let unplaced = Answer { position: None, ..contents(at(5), all()) };
    assert_eq!(fill(&mut cache, &unplaced), ItemKinds::NONE, "no cell would take it back");
}

#[test]
fn metadata_is_kept_without_contents_and_joins_contents_read_before() {
    let mut cache = Cache::new(CACHE_BYTES);

    fill(&mut cache, &answer(at(5), all(), Ok(Reply::Stat(stat(1)))));
    assert!(cache.stat(&file(), None, ME).is_some());
    assert_eq!(cache.contents(&file(), None, ME), None);
    fill(&mut cache, &contents(at(6), all()));
    fill(&mut cache, &answer(at(7), all(), Ok(Reply::Stat(stat(1)))));
    assert!(cache.contents(&file(), None, ME).is_some());

    let other = Stat { content_generation: Generation(2), ..stat(1) };
    fill(&mut cache, &answer(at(8), all(), Ok(Reply::Stat(other))));
    assert_eq!(cache.contents(&file(), None, ME), None, "those are other contents");
}

#[test]
fn nobody_else_and_no_other_instance_is_served() {
    let mut cache = filled();

    assert_eq!(cache.contents(&file(), None, "somebody"), None);
    assert_eq!(cache.contents(&file(), Some(Instance(2)), ME), None);
    assert_eq!(cache.contents(&name("/ls/dev/g"), None, ME), None);
}

#[test]
fn one_item_falls_and_the_others_stay() {
    let gone = |kind| {
        let mut cache = filled();
        invalidate(&mut cache, item("/ls/dev/f", kind), 6);
        cache.contents(&file(), None, ME).is_none()
    };

    assert!(gone(ItemKind::Data));
    assert!(gone(ItemKind::Lock));
    assert!(!gone(ItemKind::Listing));
    assert!(!gone(ItemKind::Absence));
    assert!(!gone(ItemKind::Acl), "the file is no ACL");
}

#[test]
fn a_lock_that_changes_hands_takes_only_the_lock_generation_away() {
    let mut cache = filled();
    invalidate(&mut cache, item("/ls/dev/f", ItemKind::Lock), 6);

    let next = Stat { lock_generation: Generation(8), ..stat(1) };
    fill(&mut cache, &answer(at(8), all(), Ok(Reply::Stat(next.clone()))));

    let hit = cache.contents(&file(), None, ME).expect("the contents were kept");
    assert_eq!(hit.value.1, next);
    assert_eq!(hit.position, at(8));
}

#[test]
fn what_an_acl_decided_falls_with_its_file() {
    let mut cache = filled();
    assert!(cache.is_in_acl(&file(), "everyone", ME, &CellName::new("a")));
    assert!(!cache.is_in_acl(&file(), "everyone", ME, &CellName::new("b")), "no word of that cell");

    invalidate(&mut cache, item("/ls/dev/acl/everyone", ItemKind::Acl), 6);

    assert_eq!(cache.contents(&file(), None, ME), None);
    assert!(!cache.is_in_acl(&file(), "everyone", ME, &CellName::new("a")));
}

#[test]
fn an_open_for_reading_needs_the_node_and_the_decision_and_not_the_lock() {
    let may = |without: Option<&str>, kind| {
        let mut cache = filled();
        if let Some(name) = without {
            invalidate(&mut cache, item(name, kind), 6);
        }
        cache.may_open(&file(), Instance(1), ME)
    };

    assert!(may(None, ItemKind::Data));
    assert!(may(Some("/ls/dev/f"), ItemKind::Lock));
    assert!(!may(Some("/ls/dev/f"), ItemKind::Data));
    assert!(!may(Some("/ls/dev/acl/everyone"), ItemKind::Acl));
    assert!(!filled().may_open(&file(), Instance(2), ME));
    assert!(!filled().may_open(&file(), Instance(1), "somebody"));
}

#[test]
fn what_an_open_created_is_not_kept() {
    let mut cache = Cache::new(CACHE_BYTES);
    let handle = crate::handle::HandleToken::new(Bytes::new());

    let kept =
        fill(&mut cache, &answer(at(5), all(), Ok(Reply::Opened { handle, created: true, stat: stat(1) })));

    assert_eq!(kept, ItemKinds::NONE);
}

#[test]
fn an_open_is_kept_under_the_true_name_of_what_it_opened() {
    let mut cache = Cache::new(CACHE_BYTES);
    let body = HandleBody {
        cell: CellName::new("a"),
        name: file(),
        instance: Instance(1),
        kind: NodeKind::File,
        r#use: Use::Read,
        session: SessionId([1; 16]),
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: std::time::Duration::ZERO,
        events: crate::event::EventMask::NONE,
        ephemeral: false,
    };
    let handle = HandleKey::new(Bytes::from_static(&[7; 32])).seal(&body);
    let reply = Reply::Opened { handle, created: false, stat: stat(1) };

    let ticket = cache.ticket(name("/ls/local/f"), None);
    cache.fill(ticket, ME, &answer(at(5), all(), Ok(reply)));

    assert!(cache.stat(&file(), None, ME).is_some());
    assert!(cache.stat(&name("/ls/local/f"), None, ME).is_none());
}

#[test]
fn an_absence_is_kept_until_something_is_created() {
    let mut cache = Cache::new(CACHE_BYTES);
    fill(&mut cache, &absent(at(5)));
    assert_eq!(cache.absence(&file()), Some(at(5)));

    invalidate(&mut cache, item("/ls/dev/f", ItemKind::Absence), 6);

    assert_eq!(cache.absence(&file()), None);
}

#[test]
fn other_refusals_are_no_absence() {
    let mut cache = Cache::new(CACHE_BYTES);

    fill(&mut cache, &answer(at(5), all(), Err(ErrorCode::PermissionDenied)));

    assert_eq!(cache.absence(&file()), None);
}

#[test]
fn a_listing_is_kept_for_the_directory_that_was_read() {
    let mut cache = Cache::new(CACHE_BYTES);
    let directory = name("/ls/dev/d");
    let children = Vec::from([Child { component: "c".into(), stat: stat(3) }]);
    let reply = Reply::Children { children: children.clone(), acls: AclNames::default() };

    let ticket = cache.ticket(directory.clone(), Some(Instance(2)));
    cache.fill(ticket, ME, &answer(at(5), all(), Ok(reply)));

    let hit = cache.listing(&directory, Some(Instance(2)), ME).expect("kept");
    assert_eq!((&hit.value.children[..], hit.position), (&children[..], at(5)));
    assert_eq!(cache.listing(&directory, Some(Instance(9)), ME), None);
    assert_eq!(cache.listing(&directory, Some(Instance(2)), "somebody"), None);
    invalidate(&mut cache, item("/ls/dev/d", ItemKind::Listing), 6);
    assert_eq!(cache.listing(&directory, Some(Instance(2)), ME), None);
}

#[test]
fn an_answer_about_another_instance_than_the_handles_is_not_kept() {
    let mut cache = Cache::new(CACHE_BYTES);

    let ticket = cache.ticket(file(), Some(Instance(2)));

    assert_eq!(cache.fill(ticket, ME, &contents(at(5), all())), ItemKinds::NONE);
}

#[test]
fn an_invalidation_voids_the_tickets_from_before_for_its_items_only() {
    let mut cache = Cache::new(CACHE_BYTES);
    let ticket = cache.ticket(file(), None);
    invalidate(&mut cache, item("/ls/dev/f", ItemKind::Lock), 5);

    let kept = cache.fill(ticket, ME, &contents(at(9), all()));

    assert_eq!(kept, kinds(&[ItemKind::Data, ItemKind::Acl]));
}

#[test]
fn a_fill_at_or_below_the_floor_is_not_kept_though_nothing_was_held() {
    let kept = |index| {
        let mut cache = Cache::new(CACHE_BYTES);
        invalidate(&mut cache, item("/ls/dev/f", ItemKind::Data), 5);
        fill(&mut cache, &contents(at(index), all())).contains(ItemKind::Data)
    };

    assert!(!kept(4));
    assert!(!kept(5));
    assert!(kept(6));
}

#[test]
fn floors_never_fall_and_those_of_two_cells_have_no_order() {
    let mut cache = Cache::new(CACHE_BYTES);
    let elsewhere = Position { cell: CellName::new("b"), ..at(2) };
    invalidate(&mut cache, item("/ls/dev/f", ItemKind::Data), 50);
    invalidate(&mut cache, item("/ls/dev/f", ItemKind::Data), 10);
    assert!(!fill(&mut cache, &contents(at(50), all())).contains(ItemKind::Data));

    cache.invalidate(&[item("/ls/dev/f", ItemKind::Data)], &elsewhere);

    let there = Position { index: 3, ..elsewhere };
    assert!(
        fill(&mut cache, &contents(there, all())).contains(ItemKind::Data),
        "the other cell's floor is 2"
    );
    assert!(!fill(&mut cache, &contents(at(50), all())).contains(ItemKind::Data), "the first cell's stands");
}

#[test]
fn the_oldest_floors_are_folded_into_one_for_their_cell() {
    let mut cache = Cache::new(CACHE_BYTES);
    invalidate(&mut cache, item("/ls/dev/f", ItemKind::Data), 5);
    let ticket = cache.ticket(file(), None);

    for number in 0..FLOORS_MAX {
        cache.invalidate(&[item(&format!("/ls/dev/{number}"), ItemKind::Data)], &at(100));
    }
    cache.check_invariants();

    assert_eq!(fill(&mut cache, &contents(at(5), all())), ItemKinds::NONE, "folded into the cell's floor");
    assert_eq!(
        cache.fill(ticket, ME, &contents(at(6), all())),
        kinds(&[ItemKind::Data, ItemKind::Lock, ItemKind::Acl])
    );
}

#[test]
fn a_flushed_cell_leaves_nothing_of_itself_and_all_of_others() {
    let mut cache = filled();
    let other = Position { cell: CellName::new("b"), ..at(5) };
    let ticket = cache.ticket(name("/ls/dev/g"), None);
    cache.fill(ticket, ME, &contents(other, all()));
    let under_way = cache.ticket(file(), None);

    cache.flush_cell(&CellName::new("a"), Some(Epoch(2)));
    cache.check_invariants();

    assert_eq!(cache.contents(&file(), None, ME), None);
    assert!(cache.contents(&name("/ls/dev/g"), None, ME).is_some());
    assert_eq!(cache.fill(under_way, ME, &contents(at(9), all())), ItemKinds::NONE, "asked before");
    assert_eq!(fill(&mut cache, &contents(at(9), all())), ItemKinds::NONE, "said by the earlier master");
    let new = Position { epoch: Epoch(2), ..at(1) };
    assert!(fill(&mut cache, &contents(new, all())).contains(ItemKind::Data));
}

#[test]
fn a_flush_of_everything_voids_every_ticket_and_leaves_no_floor() {
    let mut cache = filled();
    let ticket = cache.ticket(file(), None);

    cache.flush_all();
    cache.check_invariants();

    assert_eq!((cache.bytes(), cache.names()), (0, 0));
    assert_eq!(cache.fill(ticket, ME, &contents(at(9), all())), ItemKinds::NONE);
    assert!(fill(&mut cache, &contents(at(5), all())).contains(ItemKind::Data));
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let mut cache = Cache::new(4_500);
    let big = |cache: &mut Cache, text: &str| {
        let ticket = cache.ticket(name(text), None);
        let contents = Bytes::from(vec![0; 1_000]);
        let reply = Reply::Contents { contents, stat: stat(1) };
        cache.fill(ticket, ME, &answer(at(5), all(), Ok(reply)));
    };
    big(&mut cache, "/ls/dev/1");
    big(&mut cache, "/ls/dev/2");
    assert_eq!(cache.shrink(|_| false), []);
    cache.contents(&name("/ls/dev/1"), None, ME).expect("kept, and used");

    big(&mut cache, "/ls/dev/3");
    let dropped = cache.shrink(|_| false);
    cache.check_invariants();

    assert_eq!(dropped, [name("/ls/dev/2")]);
    assert!(cache.bytes() <= 4_500);
    assert!(cache.contents(&name("/ls/dev/1"), None, ME).is_some());
    assert!(cache.contents(&name("/ls/dev/3"), None, ME).is_some());
}

#[test]
fn what_was_used_elsewhere_is_spared_once() {
    let mut cache = filled();
    cache.bytes_max = cache.bytes() - 1;
    let mut asked = Vec::new();

    let dropped = cache.shrink(|name| {
        asked.push(name.clone());
        *name == file() && asked.len() <= 2
    });
    cache.check_invariants();

    assert_eq!(dropped, [name("/ls/dev/acl/everyone")], "the file was spared");
    assert!(asked.contains(&file()));
    cache.bytes_max = 0;
    assert_eq!(cache.shrink(|_| true), [file()], "and does not keep the cache from ever fitting");
    cache.check_invariants();
}
