//! P-LIN and P-MONO by positions: an answer shows exactly what its position says, a read that began after a change was
//! acknowledged shows it or something newer, and nobody sees a cell go back. Cached reads are reads like all others.

use std::collections::BTreeMap;

use hasp_proto::error::ErrorCode;
use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::node::Stat;
use hasp_proto::position::Position;
use hasp_proto::request::Reply;

use super::super::clock::Moment;
use super::super::history::{Asked, History, Told, Truth, What};
use super::super::script;
use super::Findings;

/// Checks all reads.
pub fn check(history: &History, findings: &mut Findings) {
    let acknowledged = Acknowledged::of(history);
    let mut seen: BTreeMap<(usize, u64, CellName), Position> = BTreeMap::new();
    for asked in &history.asked {
        let Some(Told { position: Some(position), result, .. }) = &asked.told else { continue };
        let Some(truth) = history.truth(position) else { continue };
        if is_read(asked, result) {
            check_value(asked, position, truth, findings);
            let how = ("P-LIN", "was acknowledged");
            check_time(asked, position, history, &acknowledged, findings, how);
            let before = seen.get(&(asked.client, asked.life, position.cell.clone()));
            findings.expect(before.is_none_or(|before| !position.is_before(before)), || {
                format!("P-MONO: {} saw {position} after {}", describe(asked), before.expect("there is one"))
            });
        }
        let key = (asked.client, asked.life, position.cell.clone());
        let latest = seen.entry(key).or_insert_with(|| position.clone());
        if latest.is_before(position) {
            *latest = position.clone();
        }
    }
}

/// What is said of a call in reports.
pub fn describe(asked: &Asked) -> String {
    let cached = asked.told.as_ref().is_some_and(|told| told.is_cached);
    let end = asked.told.as_ref().map(|told| told.at.to_string()).unwrap_or_default();
    let from = if cached { "from its cache " } else { "" };
    format!("{:?} of {} by c{} {from}[{} ..{end}]", asked.what, asked.name, asked.client + 1, asked.begun)
}

/// Whether an answer shows what there is, without changing it.
pub fn is_read(asked: &Asked, result: &Result<Reply, ErrorCode>) -> bool {
    match result {
        Ok(Reply::Contents { .. } | Reply::Stat(_) | Reply::Children { .. }) => true,
        Ok(Reply::Opened { created, .. }) => !created,
        Err(ErrorCode::NotFound) => matches!(asked.what, What::Open),
        Ok(_) | Err(_) => false,
    }
}

fn check_value(asked: &Asked, position: &Position, truth: &Truth, findings: &mut Findings) {
    let node = truth.node_at(&asked.name, position.index);
    let Some(Told { result, .. }) = &asked.told else { return };
    let is_right = match (result, node) {
        (Ok(Reply::Contents { contents, stat }), Some((is, written))) => contents == written && stat == is,
        // To open an ephemeral node is a write: asked again, it tells where it was done first and what there is by then.
        (Ok(Reply::Opened { stat, .. }), Some(_)) if stat.ephemeral => {
            let count = truth.count_at(&asked.name, position.index);
            let since = &truth.versions[&asked.name][count - 1..];
            since.iter().any(|version| version.node.as_ref().is_some_and(|(is, _)| is == stat))
        }
        (Ok(Reply::Stat(stat) | Reply::Opened { stat, .. }), Some((is, _))) => stat == is,
        // A directory may be listed by another cell than that of its node.
        (Ok(Reply::Children { children, .. }), node)
            if node.is_some() || script::may_be_split(&asked.name) =>
        {
            let listed: BTreeMap<_, _> =
                children.iter().map(|child| (child.component.as_str(), &child.stat)).collect();
            children_of(truth, &asked.name).all(|name| {
                let is = truth.node_at(name, position.index).map(|(stat, _)| listing_stat(stat));
                listed.get(name.component()).map(|stat| (*stat).clone()) == is
            })
        }
        // Whoever says so has the name.
        (Err(_), None) => !truth.has_left(&asked.name, position.index),
        _ => false,
    };
    findings.expect(is_right, || {
        let is = node.map(|(stat, contents)| (stat.content_generation, stat.lock_generation, contents));
        format!("P-LIN: {} at {position} was told {result:?}, but there it was {is:?}", describe(asked))
    });
}

fn listing_stat(stat: &Stat) -> Stat {
    Stat { lock_generation: hasp_proto::id::Generation(0), ..stat.clone() }
}

fn children_of<'a>(truth: &'a Truth, directory: &'a Name) -> impl Iterator<Item = &'a Name> {
    truth.versions.keys().filter(move |name| name.parent().as_ref() == Some(directory))
}

/// An answer shows of each name that it is about at least what was known before it was asked.
pub fn check_time(
    asked: &Asked,
    position: &Position,
    history: &History,
    acknowledged: &Acknowledged,
    findings: &mut Findings,
    (promise, how): (&str, &str),
) {
    let Some(truth) = history.truth(position) else { return };
    let names: Vec<&Name> = match asked.what {
        // The locks of children are not in a listing.
        What::List => children_of(truth, &asked.name).collect(),
        _ => vec![&asked.name],
    };
    for name in names {
        for (cell, index) in acknowledged.before(name, asked.begun, asked.what == What::List) {
            let (shown, done) = (truth.count_at(name, position.index), index);
            let is_shown = match history.truths.get(cell) {
                Some(other) if *cell == position.cell => shown >= other.count_at(name, done),
                // Of what another cell has said in its time, what is shown here must be younger.
                Some(other) => {
                    let version = |truth: &'_ Truth, count: usize| {
                        let version = &truth.versions[name][count.checked_sub(1)?];
                        Some((version.at, version.node.is_some()))
                    };
                    // What is shown was so at least since it came here.
                    let since = truth.had_since(name, position.index);
                    let shown = version(truth, shown).max(since.map(|since| (since, false)));
                    match (version(other, other.count_at(name, done)), shown) {
                        (None, _) => true,
                        (Some((_, is_there)), None) => !is_there,
                        (Some((done, is_there)), Some((shown, is_here))) => {
                            shown >= done || !is_there && !is_here
                        }
                    }
                }
                None => true,
            };
            findings.expect(is_shown, || {
                format!(
                    "{promise}: {} shows {name} as of {position}, but a change at index {index} of {cell} {how} before it \
                     began",
                    describe(asked)
                )
            });
        }
    }
}

/// The highest index of a change of each name that had been acknowledged by some moment.
pub struct Acknowledged {
    /// By name and cell, in the order of time, the index growing: of contents and nodes, and of everything.
    by_name: BTreeMap<Name, ByCell>,
}

/// Of contents and nodes, and of everything.
type ByCell = BTreeMap<CellName, [Vec<(Moment, u64)>; 2]>;

/// That somebody knows that a change of a name has been made.
struct Known<'a> {
    at: Moment,
    name: &'a Name,
    cell: &'a CellName,
    index: u64,
    /// Of its lock only.
    is_lock: bool,
}

impl Acknowledged {
    /// By the answers to those who made the changes.
    pub fn of(history: &History) -> Self {
        let known = |asked| -> Option<Known<'_>> {
            let Asked { name, what, told, .. }: &Asked = asked;
            let is_lock = matches!(what, What::Acquire(_));
            let told = told.as_ref()?;
            let Position { cell, index, .. } = told.position.as_ref()?;
            Some(Known { at: told.at, name, cell, index: *index, is_lock })
        };
        Self::collect(history.asked.iter().filter(|asked| asked.has_changed()).filter_map(known).collect())
    }

    /// By the facts that somebody was told of: when, which name, at which index of which cell, and whether it is about its lock only.
    pub fn by_events<'a>(told: impl Iterator<Item = (Moment, &'a Name, &'a CellName, u64, bool)>) -> Self {
        let known = |(at, name, cell, index, is_lock)| Known { at, name, cell, index, is_lock };
        Self::collect(told.map(known).collect())
    }

    fn collect(mut all: Vec<Known<'_>>) -> Self {
        all.sort_by_key(|known| known.at);
        let mut by_name: BTreeMap<Name, ByCell> = BTreeMap::new();
        for Known { at, name, cell, index, is_lock } in all {
            let by_cell = by_name.entry(name.clone()).or_default();
            let [contents, everything] = by_cell.entry(cell.clone()).or_default();
            for list in std::iter::once(everything).chain((!is_lock).then_some(contents)) {
                let highest = list.last().map_or(index, |(_, last)| index.max(*last));
                list.push((at, highest));
            }
        }
        Self { by_name }
    }

    /// The highest index known of a name before that moment, by cell; of its lock too, or not.
    pub fn before<'a>(
        &'a self,
        name: &Name,
        moment: Moment,
        contents_only: bool,
    ) -> impl Iterator<Item = (&'a CellName, u64)> + use<'a> {
        let by_cell = self.by_name.get(name).into_iter().flatten();
        by_cell.filter_map(move |(cell, lists)| {
            let list = &lists[usize::from(!contents_only)];
            let count = list.partition_point(|(at, _)| *at < moment);
            Some((cell, list[..count].last()?.1))
        })
    }
}
