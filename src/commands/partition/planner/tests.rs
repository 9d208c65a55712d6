//! What is proposed for which load.

use super::super::load::CellLoad;
use super::*;

const THRESHOLDS: Thresholds = Thresholds { gain_min: 0.1, load_min: 100.0 };

/// Rules, and directories with nodes, reads and writes per second. The owner is who has the load.
struct World {
    map: PartitionMap,
    loads: Loads,
}

fn world(rules: &[(&'static str, &'static str)], directories: &[(&str, u64, f64, f64)]) -> World {
    let cells = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![])).into();
    let map = PartitionMap::new(1, "dev", rules.iter().copied(), cells).expect("a good map");
    let cells = ["a", "b", "c"].map(|cell| (CellName::new(cell), CellLoad::default()));
    let mut loads = Loads(cells.into());
    for (text, nodes, reads_per_s, writes_per_s) in directories {
        let name = Name::parse(text).expect("a good name");
        let part =
            Part { nodes: *nodes, bytes: 10 * nodes, reads_per_s: *reads_per_s, writes_per_s: *writes_per_s };
        let load = loads.0.get_mut(map.children_owner(&name).expect("of dev")).expect("listed");
        let rule = load.rules.entry(map.children_rule(&name).expect("of dev").to_string()).or_default();
        rule.nodes = rule.nodes.max(*nodes);
        rule.bytes = rule.bytes.max(10 * nodes);
        rule.reads_per_s += reads_per_s;
        rule.writes_per_s += writes_per_s;
        load.directories.insert(name, part);
    }
    World { map, loads }
}

/// What is proposed, a line each, and what each cell has then.
fn proposed(World { map, loads }: &World) -> (Vec<String>, Vec<f64>) {
    let plan = plan(map, loads, THRESHOLDS);
    let total = |loads: &BTreeMap<CellName, f64>| loads.values().sum::<f64>();
    assert!((total(&plan.before) - total(&plan.after)).abs() < 1e-6, "nothing is lost: {plan:?}");
    let line = |proposal: &Proposal| {
        let Proposal { wish, from, to, nodes, load, .. } = proposal;
        let verb = match wish {
            Wish::Split(_) => "split",
            Wish::Move(_) => "move",
            Wish::Merge(_) => "merge",
        };
        format!("{verb} {} {from} -> {to}: {nodes} nodes, {load:.0}", wish.prefix())
    };
    (plan.proposals.iter().map(line).collect(), plan.after.into_values().map(f64::round).collect())
}

fn check(world: &World, lines: &[&str], after: [f64; 3]) {
    assert_eq!(proposed(world), (lines.iter().map(ToString::to_string).collect(), after.to_vec()));
}

#[test]
fn a_hot_directory_goes_to_the_least_loaded_cell() {
    let hot = [("/ls/dev", 30, 50.0, 0.0), ("/ls/dev/x", 20, 0.0, 0.0), ("/ls/dev/x/d", 10, 80.0, 20.0)];
    let elsewhere = [("/ls/dev/b", 1, 40.0, 0.0), ("/ls/dev/c", 1, 10.0, 0.0)];
    let rules = [("/ls/dev", "a"), ("/ls/dev/b", "b"), ("/ls/dev/c", "c")];

    let world = world(&rules, &[&hot[..], &elsewhere].concat());
    // Not /ls/dev/x, with which the same load and more nodes would go.
    check(&world, &["split /ls/dev/x/d a -> c: 10 nodes, 160"], [50.0, 40.0, 170.0]);
}

#[test]
fn several_changes_bring_the_cells_towards_the_mean() {
    let of = ["d1", "d2", "d3", "d4", "d5", "d6"].map(|name| format!("/ls/dev/{name}"));
    let of: Vec<_> = of.iter().map(|name| (name.as_str(), 5, 100.0, 0.0)).collect();

    let (lines, after) = proposed(&world(&[("/ls/dev", "a")], &of));
    assert_eq!(after, [200.0; 3]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[0], "split /ls/dev/d1 a -> b: 5 nodes, 100");
}

#[test]
fn rules_move_or_go() {
    let rules = [("/ls/dev", "a"), ("/ls/dev/x", "b"), ("/ls/dev/y", "b")];
    let x_and_y = [("/ls/dev/x", 5, 300.0, 0.0), ("/ls/dev/y", 6, 200.0, 0.0)];

    let all_idle = world(&rules, &x_and_y);
    check(&all_idle, &["merge /ls/dev/x b -> a: 5 nodes, 300"], [300.0, 200.0, 0.0]);
    let home_busy = world(&rules, &[&x_and_y[..], &[("/ls/dev/acl", 3, 400.0, 0.0)]].concat());
    check(&home_busy, &["move /ls/dev/x b -> c: 5 nodes, 300"], [400.0, 200.0, 300.0]);
}

#[test]
fn directories_on_a_ring_leave_it_one_by_one() {
    let rules = [("/ls/dev", "a"), ("/ls/dev/u/*", "b")];
    let of = [("/ls/dev/u/x", 3, 0.0, 50.0), ("/ls/dev/u/y/z", 4, 0.0, 50.0)];

    check(&world(&rules, &of), &["split /ls/dev/u/x b -> a: 3 nodes, 200"], [200.0, 200.0, 0.0]);
}

#[test]
fn nothing_is_proposed_that_is_not_worth_it() {
    let nothing = |of: &[(&str, u64, f64, f64)]| {
        let world = world(&[("/ls/dev", "a"), ("/ls/dev/b", "b"), ("/ls/dev/c", "c")], of);
        assert_eq!(proposed(&world).0, Vec::<String>::new(), "{of:?}");
    };
    nothing(&[]);
    // Less than a cell is relieved of at all.
    nothing(&[("/ls/dev/d", 5, 50.0, 0.0), ("/ls/dev/e", 5, 40.0, 0.0)]);
    // The same trouble elsewhere.
    nothing(&[("/ls/dev/d", 5, 500.0, 0.0)]);
    // Little gained.
    let even = [("/ls/dev/d", 5, 500.0, 0.0), ("/ls/dev/e", 5, 40.0, 0.0)];
    nothing(&[&even[..], &[("/ls/dev/b", 5, 500.0, 0.0), ("/ls/dev/c", 5, 490.0, 0.0)]].concat());
    // Only what nothing is in, and the namespace's own.
    nothing(&[("/ls/dev/d", 0, 500.0, 0.0), ("/ls/dev", 9, 500.0, 0.0)]);
    nothing(&[("/ls/dev/acl", 5, 500.0, 0.0), ("/ls/dev/.hasp", 5, 500.0, 0.0)]);
}

#[test]
fn what_is_too_much_for_one_move_stays() {
    let many = MOVE_NODES_MAX as u64;
    let of = |nodes| [("/ls/dev/d", nodes, 300.0, 0.0), ("/ls/dev/e", 5, 200.0, 0.0)];
    let rules = [("/ls/dev", "a")];

    let check_first = |nodes, expected: &str| {
        let lines = proposed(&world(&rules, &of(nodes))).0;
        assert!(lines[0].starts_with(expected), "{lines:?}");
        lines.len()
    };
    check_first(many, "split /ls/dev/e a -> b: 5 nodes");
    assert_eq!(check_first(many + 1, "split /ls/dev/e a -> b: 5 nodes"), 1);

    let mut heavy = world(&rules, &of(5));
    let load = heavy.loads.0.values_mut().next().expect("three");
    for part in load.directories.values_mut() {
        part.bytes = MOVE_BYTES_MAX as u64 + 1;
    }
    assert_eq!(proposed(&heavy).0, Vec::<String>::new());
}

#[test]
fn writes_weigh_more_than_reads() {
    let part = Part { nodes: 1, bytes: 1, reads_per_s: 10.0, writes_per_s: 5.0 };
    assert!((cost(&part) - 30.0).abs() < 1e-9);
}
