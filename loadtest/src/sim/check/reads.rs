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
            check_time(asked, position, truth, &acknowledged, findings, ("P-LIN", "was acknowledged"));
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
        // A directory in the ring is listed by the cell of its children.
        (Ok(Reply::Children { children, .. }), node) if node.is_some() || script::is_spread(&asked.name) => {
            let listed: BTreeMap<_, _> =
                children.iter().map(|child| (child.component.as_str(), &child.stat)).collect();
            children_of(truth, &asked.name).all(|name| {
                let is = truth.node_at(name, position.index).map(|(stat, _)| listing_stat(stat));
                listed.get(name.component()).map(|stat| (*stat).clone()) == is
            })
        }
        (Err(_), None) => true,
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
    truth: &Truth,
    acknowledged: &Acknowledged,
    findings: &mut Findings,
    (promise, how): (&str, &str),
) {
    let names: Vec<&Name> = match asked.what {
        // The locks of children are not in a listing.
        What::List => children_of(truth, &asked.name).collect(),
        _ => vec![&asked.name],
    };
    for name in names {
        let Some(index) = acknowledged.before(name, asked.begun, asked.what == What::List) else { continue };
        let (shown, done) = (truth.count_at(name, position.index), truth.count_at(name, index));
        findings.expect(shown >= done, || {
            format!(
                "{promise}: {} shows {name} as of {position}, but a change at index {index} {how} before it began",
                describe(asked)
            )
        });
    }
}

/// The highest index of a change of each name that had been acknowledged by some moment.
pub struct Acknowledged {
    /// In the order of time, the index growing: of contents and nodes, and of everything.
    by_name: BTreeMap<Name, [Vec<(Moment, u64)>; 2]>,
}

/// That somebody knows that a change of a name has been made.
struct Known<'a> {
    at: Moment,
    name: &'a Name,
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
            Some(Known { at: told.as_ref()?.at, name, index: asked.index()?, is_lock })
        };
        Self::collect(history.asked.iter().filter(|asked| asked.has_changed()).filter_map(known).collect())
    }

    /// By the facts that somebody was told of: when, which name, at which index, and whether it is about its lock only.
    pub fn by_events<'a>(told: impl Iterator<Item = (Moment, &'a Name, u64, bool)>) -> Self {
        Self::collect(told.map(|(at, name, index, is_lock)| Known { at, name, index, is_lock }).collect())
    }

    fn collect(mut all: Vec<Known<'_>>) -> Self {
        all.sort_by_key(|known| known.at);
        let mut by_name: BTreeMap<Name, [Vec<(Moment, u64)>; 2]> = BTreeMap::new();
        for Known { at, name, index, is_lock } in all {
            let [contents, everything] = by_name.entry(name.clone()).or_default();
            for list in std::iter::once(everything).chain((!is_lock).then_some(contents)) {
                let highest = list.last().map_or(index, |(_, last)| index.max(*last));
                list.push((at, highest));
            }
        }
        Self { by_name }
    }

    /// The highest index known of a name before that moment; of its lock too, or not.
    pub fn before(&self, name: &Name, moment: Moment, contents_only: bool) -> Option<u64> {
        let list = &self.by_name.get(name)?[usize::from(!contents_only)];
        let count = list.partition_point(|(at, _)| *at < moment);
        Some(list[..count].last()?.1)
    }
}
