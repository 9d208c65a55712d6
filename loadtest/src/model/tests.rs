//! Small bounds of each model hold; without any one part of the protocol something breaks.

use std::time::Duration;

use super::*;

fn limits(states: usize) -> Limits {
    Limits { states, time: Duration::from_secs(3_600), threads: 1 }
}

fn check_holds(plan: Plan, states: usize) {
    let found = search(&Protocol::new(plan), Order::Depth, limits(states), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert!(found.is_complete || found.states >= states, "{found:?}");
}

fn check_missed(omission: Omission) {
    let found = match Plan::without(omission) {
        Some(plan) => search(&Protocol::new(plan), Order::Breadth, limits(200_000), |_| {}),
        None if omission.is_of_directories() => {
            search(&Directories::without(omission), Order::Breadth, limits(200_000), |_| {})
        }
        None if omission.is_of_moves() => {
            search(&Moves::without(omission), Order::Breadth, limits(200_000), |_| {})
        }
        None => search(&Fills::without(omission), Order::Breadth, limits(200_000), |_| {}),
    };

    let counterexample =
        found.counterexample.unwrap_or_else(|| panic!("{omission} survives {}", found.states));
    let told = counterexample.story.last().expect("something happened");
    assert!(told.contains("broken"), "the story ends with it: {told}");
}

#[test]
fn a_cache_is_never_older_than_a_write_that_was_acknowledged() {
    check_holds(Plan::cache(), 3_000);
}

#[test]
fn nor_is_it_through_a_fail_over() {
    check_holds(Plan::fail_over(), 3_000);
}

#[test]
fn nor_behind_a_proxy() {
    check_holds(Plan::tier(), 3_000);
}

#[test]
fn a_lock_is_not_taken_from_a_client_that_moves_between_proxies() {
    check_holds(Plan::claims(), 1_000);
}

#[test]
fn a_write_that_is_asked_again_takes_effect_once() {
    check_holds(Plan::once(), 3_000);
}

#[test]
fn whatever_the_network_does_a_cache_shows_what_was_committed_last() {
    let found = search(&Fills::small(), Order::Depth, limits(1_000_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert!(found.is_complete && found.missing.is_empty(), "{found:?}");
    assert!(found.states > 1_000, "{found:?}");
}

#[test]
fn an_invalidation_must_be_awaited() {
    check_missed(Omission::InvalidationNotAwaited);
}

#[test]
fn leases_must_allow_for_the_rates_of_clocks() {
    check_missed(Omission::ClocksUnbounded);
}

#[test]
fn leases_must_count_from_when_they_were_asked_for() {
    check_missed(Omission::LeaseFromReceipt);
}

#[test]
fn an_invalidation_must_leave_a_floor() {
    check_missed(Omission::FloorForgotten);
}

#[test]
fn a_new_master_must_wait_for_those_who_cached_under_the_last() {
    check_missed(Omission::FailOverNotAwaited);
}

#[test]
fn a_master_must_earn_its_lease() {
    check_missed(Omission::MasterLeaseUnearned);
}

#[test]
fn an_old_master_must_not_end_who_is_its_successors() {
    check_missed(Omission::EndedByOldMaster);
}

#[test]
fn a_lock_is_not_taken_from_a_client_that_its_old_master_wants_to_end() {
    let found = search(&Protocol::new(Plan::two_masters()), Order::Depth, limits(1_000_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert!(found.is_complete && found.missing.is_empty(), "{found:?}");
}

#[test]
fn a_claim_must_be_awaited() {
    check_missed(Omission::ClaimNotAwaited);
}

#[test]
fn a_write_that_is_asked_again_must_be_known_again() {
    check_missed(Omission::RetriedAnew);
}

#[test]
fn whoever_creates_in_a_directory_while_another_deletes_it_no_child_is_without_it() {
    let found = search(&Directories::small(), Order::Depth, limits(1_000_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert!(found.is_complete && found.missing.is_empty(), "{found:?}");
    assert!(found.states > 1_000, "{found:?}");
}

#[test]
fn a_seal_must_be_voided_before_it_is_taken_back() {
    check_missed(Omission::SealNotVoided);
}

#[test]
fn what_was_said_of_a_directory_before_it_went_must_be_void() {
    check_missed(Omission::EvidenceNotVoided);
}

#[test]
fn a_directory_must_be_sealed_only_without_children() {
    check_missed(Omission::ChildrenNotLookedFor);
}

#[test]
fn a_directory_must_be_deleted_only_by_a_seal() {
    check_missed(Omission::DeletedUnsealed);
}

#[test]
fn a_file_that_moves_while_it_is_locked_and_written_is_in_one_cell_as_it_was_left() {
    let found = search(&Moves::small(), Order::Depth, limits(1_000_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert_eq!(found.missing, ["both routers carry out the same change"], "{found:?}");
    assert!(found.is_complete && found.states > 1_000, "{found:?}");
}

#[test]
fn two_routers_that_carry_out_one_change_do_what_one_would() {
    let found = search(&Moves::unused(), Order::Depth, limits(1_000_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert!(found.is_complete && found.missing.is_empty() && found.states > 1_000, "{found:?}");
}

#[test]
fn what_moves_while_its_holders_session_ends_is_held_by_nobody_in_the_end() {
    let found = search(&Moves::ended_small(), Order::Depth, limits(1_000_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert_eq!(found.missing, ["both routers carry out the same change"], "{found:?}");
    assert!(found.is_complete && found.states > 1_000, "{found:?}");
}

#[test]
fn a_file_may_move_there_and_back() {
    let found = search_widely(&Moves::large(), limits(8_000), |_| {});

    assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
    assert!(!found.is_complete, "{found:?}");
}

#[test]
fn a_move_must_be_decided_by_the_home_cell() {
    check_missed(Omission::MoveNotDecided);
}

#[test]
fn what_moves_must_be_packed() {
    check_missed(Omission::NotPacked);
}

#[test]
fn what_moves_must_be_there_before_the_move_is_done() {
    check_missed(Omission::ImportNotAwaited);
}

#[test]
fn a_destination_must_drop_what_came_when_the_move_is_given_up() {
    check_missed(Omission::ParcelNotDropped);
}

#[test]
fn the_answers_that_were_given_must_move() {
    check_missed(Omission::AnswersLeftBehind);
}

#[test]
fn the_last_stamp_must_move() {
    check_missed(Omission::StampLeftBehind);
}

#[test]
fn the_holders_of_locks_must_move() {
    check_missed(Omission::LocksLeftBehind);
}

#[test]
fn who_has_ended_must_lose_what_comes_later() {
    check_missed(Omission::OrphanKept);
}

#[test]
fn the_keys_of_handles_must_move() {
    check_missed(Omission::KeysLeftBehind);
}

#[test]
fn nothing_breaks_where_nothing_is_left_out() {
    for omission in [Omission::LeaseFromReceipt, Omission::EpochShared] {
        let plan = Plan::without(omission).expect("a world of its own");

        check_holds(Plan { omission: None, ..plan }, 20_000);
    }
}

#[test]
fn a_search_that_does_not_come_to_its_end_sees_what_should_come_about() {
    for plan in [Plan::fail_over(), Plan::tier()] {
        let found = search_widely(&Protocol::new(plan), limits(8_000), |_| {});

        assert!(found.counterexample.is_none(), "{:#?}", found.counterexample);
        assert!(!found.is_complete && found.missing.is_empty(), "{found:?}");
    }
}

#[test]
fn the_same_actions_lead_to_the_same_state() {
    let plan = std::sync::Arc::new(Plan::tier());
    let walk = || {
        let mut world = world::World::begun(&plan);
        let mut actions = Vec::new();
        for step in 0..40 {
            actions.clear();
            world.actions(&mut actions);
            let Some(action) = actions.get(step * 7 % actions.len().max(1)).copied() else { break };
            world.take(&action);
        }
        hash_of(&world)
    };

    assert_eq!(walk(), walk());
}
