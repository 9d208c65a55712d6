//! Configuration files of servers: TOML, no unknown fields, every mistake with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hasp_proto::hosts::is_address;
use hasp_proto::id::CellName;
use hasp_proto::partition::PartitionMap;
use serde::Deserialize;

use crate::exit::Failure;

/// One rule of the partition map, plain or ring.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Every node strictly below it lives in `cell`; or, if it ends in `/*`, every node strictly below one of the
    /// directories that it stands for lives in one of the cells.
    pub prefix: String,
    /// Which one; of a prefix that ends in `/*` which ones, separated by blanks or commas.
    pub cell: String,
}

/// The file of `hasp cell`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellFile {
    /// The cell's name; a key of `cells`.
    pub cell: String,
    /// This replica: its place in the cell's list, from 1.
    pub id: u64,
    /// `host:port` to listen on; by default the replica's own entry in the list.
    pub listen: Option<String>,
    /// `host:port` of the operators' HTTP port.
    pub admin: Option<String>,
    /// The data directory.
    pub dir: Option<PathBuf>,
    /// Where traces go: a collector that takes OTLP over gRPC, `http://HOST:PORT`.
    pub otlp: Option<String>,
    /// Which part of the traces that begin here is kept, 0 to 1.
    pub trace_ratio: Option<f64>,
    /// The namespace that the cells serve.
    pub namespace: String,
    /// Which cell owns what.
    pub rules: Vec<Rule>,
    /// Cell -> `host:port` of each replica.
    pub cells: BTreeMap<String, Vec<String>>,
}

/// The file of `hasp proxy` and `hasp router`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// `host:port` to listen on.
    pub listen: Option<String>,
    /// `host:port` of the operators' HTTP port.
    pub admin: Option<String>,
    /// Where clients reach it, if not where it listens.
    pub advertise: Option<String>,
    /// `host:port` of proxies or routers that stand before the cells, if it is to be behind those.
    #[serde(default)]
    pub upstream: Vec<String>,
    /// Where traces go: a collector that takes OTLP over gRPC, `http://HOST:PORT`.
    pub otlp: Option<String>,
    /// Which part of the traces that begin here is kept, 0 to 1.
    pub trace_ratio: Option<f64>,
    /// The namespace that the cells serve.
    pub namespace: String,
    /// Which cell owns what.
    pub rules: Vec<Rule>,
    /// Cell -> `host:port` of each replica.
    pub cells: BTreeMap<String, Vec<String>>,
}

/// Reads a configuration file.
///
/// # Errors
/// What is wrong, in which file, and for a mistake in the file in which line.
#[allow(clippy::disallowed_methods, reason = "the configuration is read before there is a world")]
pub fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("read {}: {error}", path.display())))?;
    parse(&path.display().to_string(), &text)
}

fn parse<T: serde::de::DeserializeOwned>(place: &str, text: &str) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        Failure::Usage(format!("{place}, line {line}: {}", error.message()))
    })
}

/// Checks a list of addresses.
///
/// # Errors
/// Wrong usage: the one that is wrong.
pub fn addresses(key: &str, list: &[String]) -> Result<(), Failure> {
    match list.iter().find(|address| !is_address(address)) {
        Some(bad) => Err(Failure::Usage(format!("{key}: {bad:?} is not HOST:PORT"))),
        None => Ok(()),
    }
}

/// Checks and builds the map that a file describes.
///
/// # Errors
/// Wrong usage: the rule or address that is wrong.
pub fn map(
    namespace: &str,
    rules: &[Rule],
    cells: &BTreeMap<String, Vec<String>>,
) -> Result<PartitionMap, Failure> {
    for (cell, replicas) in cells {
        if replicas.is_empty() {
            return Err(Failure::Usage(format!("cell {cell} has no replicas")));
        }
        for (place, address) in replicas.iter().enumerate() {
            if !is_address(address) {
                let id = place + 1;
                return Err(Failure::Usage(format!(
                    "cell {cell}, replica {id}: {address:?} is not HOST:PORT"
                )));
            }
        }
    }
    let rules = rules.iter().map(|rule| (rule.prefix.as_str(), rule.cell.as_str()));
    let cells = cells.iter().map(|(cell, replicas)| (CellName::new(cell), replicas.clone())).collect();
    PartitionMap::new(1, namespace, rules, cells).map_err(|error| Failure::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cell = "a"
id = 1
dir = "/data"
namespace = "dev"

[[rules]]
prefix = "/ls/dev"
cell = "a"

[cells]
a = ["h:1", "h:2", "h:3"]
"#;

    #[test]
    fn a_good_file_is_read() {
        let file: CellFile = parse("cell.toml", GOOD).expect("good");

        let map = map(&file.namespace, &file.rules, &file.cells).expect("good");

        assert_eq!(map.home().as_str(), "a");
    }

    #[test]
    fn a_ring_is_written_as_a_rule_with_several_cells() {
        let ring = "[[rules]]\nprefix = \"/ls/dev/users/*\"\ncell = \"a b\"\n\n[cells]\nb = [\"h:4\"]";
        let file: CellFile = parse("cell.toml", &GOOD.replace("[cells]", ring)).expect("good");

        let map = map(&file.namespace, &file.rules, &file.cells).expect("good");

        let rings: Vec<_> = map.rings().map(|(name, ring)| format!("{name} {ring}")).collect();
        assert_eq!(rings, ["/ls/dev/users a b"]);
    }

    #[test]
    fn a_mistake_is_told_with_file_and_line() {
        let check = |text: &str, message: &str| {
            let error = parse::<CellFile>("cell.toml", text).expect_err("bad");
            assert_eq!(error.code(), 2);
            assert!(error.to_string().contains(message), "{error}");
        };
        check(&GOOD.replace("dir =", "dri ="), "cell.toml, line 4: unknown field `dri`");
        check(&GOOD.replace("id = 1", "id = \"one\""), "cell.toml, line 3");
        check("cell = ", "cell.toml, line 1");
    }

    #[test]
    fn a_map_that_cannot_be_is_refused() {
        let file: CellFile = parse("cell.toml", GOOD).expect("good");
        let check = |cells: &[(&str, &[&str])], message: &str| {
            let cells = cells
                .iter()
                .map(|(cell, list)| ((*cell).to_owned(), list.iter().map(|a| (*a).to_owned()).collect()))
                .collect();
            let error = map("dev", &file.rules, &cells).expect_err("bad");
            assert!(error.to_string().contains(message), "{error}");
        };
        check(&[("a", &[])], "cell a has no replicas");
        check(&[("a", &["h"])], "cell a, replica 1: \"h\" is not HOST:PORT");
        check(&[("b", &["h:1"])], "cell a is not among the cells");
    }
}
