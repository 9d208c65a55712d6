//! How much there may be below a directory (paper §4.5), and how much there is.
//!
//! The file `/ls/<namespace>/.hasp/quotas` says so in lines `PREFIX nodes=N bytes=N`, of which either bound may be
//! left out. What is strictly below a prefix counts, as far as this cell holds it. Usage is kept as nodes come
//! and go, and counted anew when the file changes; of a cell without quotas nothing is kept.

use hasp_proto::acl::lines;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::name::Name;
use rpds::RedBlackTreeMapSync;

use super::tree::Tree;

/// One line of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Quota {
    nodes_max: Option<u64>,
    bytes_max: Option<u64>,
}

/// How much there is below a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    nodes: u64,
    bytes: u64,
}

/// All quotas of a cell, and what is used of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    by_prefix: RedBlackTreeMapSync<Name, (Quota, Usage)>,
}

impl Quotas {
    /// Reads the contents of the file; of what is used nothing is known then.
    ///
    /// # Errors
    /// `InvalidArgument`, with the first line that is no quota of this namespace.
    pub fn parse(contents: &[u8], namespace: &str) -> Result<Self, Error> {
        let mut quotas = Self::default();
        for (number, line) in lines(contents) {
            let refused =
                |why: &str| ErrorCode::InvalidArgument.because(format!("quotas, line {number}: {why}"));
            let line = line.map_err(|_| refused("not UTF-8"))?;
            let (prefix, quota) = parse_line(line).map_err(|why| refused(&why))?;
            if prefix.namespace() != namespace {
                return Err(refused(&format!("{prefix} is not in namespace {namespace}")));
            }
            if quotas.by_prefix.contains_key(&prefix) {
                return Err(refused(&format!("a second quota for {prefix}")));
            }
            quotas.by_prefix.insert_mut(prefix, (quota, Usage::default()));
        }
        Ok(quotas)
    }

    /// Counts anew what is used. Walks the whole tree, unless there are no quotas.
    pub fn recount(&mut self, tree: &Tree) {
        if self.by_prefix.is_empty() {
            return;
        }
        let prefixes: Vec<Name> = self.by_prefix.keys().cloned().collect();
        for prefix in prefixes {
            if let Some((_, usage)) = self.by_prefix.get_mut(&prefix) {
                *usage = Usage::default();
            }
        }
        for (name, node) in tree.iter() {
            self.add_node(name, node.contents.len());
        }
    }

    /// Whether a node of that name with so many bytes may be made.
    ///
    /// # Errors
    /// `QuotaExceeded`, with the innermost prefix whose quota does not allow it.
    pub fn check_node(&self, name: &Name, bytes: usize) -> Result<(), Error> {
        self.check(name, 1, as_u64(bytes))
    }

    /// Whether the contents of that node may change from so many bytes to so many. Shrinking may always be.
    ///
    /// # Errors
    /// `QuotaExceeded`, with the innermost prefix whose quota does not allow it.
    pub fn check_resize(&self, name: &Name, from: usize, to: usize) -> Result<(), Error> {
        self.check(name, 0, as_u64(to.saturating_sub(from)))
    }

    fn check(&self, name: &Name, nodes: u64, bytes: u64) -> Result<(), Error> {
        if self.by_prefix.is_empty() {
            return Ok(());
        }
        for prefix in directories_above(name) {
            let Some((quota, usage)) = self.by_prefix.get(prefix) else { continue };
            let exceeds = |grows: u64, used: u64, max: Option<u64>| {
                max.filter(|max| grows > 0 && used.saturating_add(grows) > *max)
            };
            let excess = match (
                exceeds(nodes, usage.nodes, quota.nodes_max),
                exceeds(bytes, usage.bytes, quota.bytes_max),
            ) {
                (Some(max), _) => format!("{} nodes and one more, the quota is {max}", usage.nodes),
                (None, Some(max)) => {
                    format!("{} bytes and {bytes} more, the quota is {max}", usage.bytes)
                }
                (None, None) => continue,
            };
            return Err(ErrorCode::QuotaExceeded.because(format!("below {prefix} there are {excess}")));
        }
        Ok(())
    }

    /// A node is there that was not.
    pub fn add_node(&mut self, name: &Name, bytes: usize) {
        self.update(name, |usage| {
            usage.nodes += 1;
            usage.bytes += as_u64(bytes);
        });
    }

    /// A node is not there any more.
    pub fn remove_node(&mut self, name: &Name, bytes: usize) {
        self.update(name, |usage| {
            usage.nodes -= 1;
            usage.bytes -= as_u64(bytes);
        });
    }

    /// A node has other contents.
    pub fn resize_node(&mut self, name: &Name, from: usize, to: usize) {
        self.update(name, |usage| usage.bytes = usage.bytes - as_u64(from) + as_u64(to));
    }

    fn update(&mut self, name: &Name, change: impl Fn(&mut Usage)) {
        if self.by_prefix.is_empty() {
            return;
        }
        for prefix in directories_above(name) {
            if let Some((_, usage)) = self.by_prefix.get_mut(prefix) {
                change(usage);
            }
        }
    }
}

/// The names of all directories above, the nearest first.
fn directories_above(name: &Name) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name.as_str()), |name| Some(name.rsplit_once('/')?.0)).skip(1)
}

/// A prefix, which may hold blanks, and its bounds after it.
fn parse_line(line: &str) -> Result<(Name, Quota), String> {
    let mut quota = Quota::default();
    let mut rest = line;
    while let Some((before, bound)) = rest.rsplit_once(char::is_whitespace) {
        let (max, digits) = match bound.split_once('=') {
            Some(("nodes", digits)) => (&mut quota.nodes_max, digits),
            Some(("bytes", digits)) => (&mut quota.bytes_max, digits),
            _ => break,
        };
        let number = digits.parse().map_err(|_| format!("{bound}: not a number"))?;
        if max.replace(number).is_some() {
            return Err("a bound is given twice".to_owned());
        }
        rest = before.trim_end();
    }
    if quota == Quota::default() {
        return Err("no bound, as in /ls/dev/logs nodes=100 bytes=65536".to_owned());
    }
    let prefix = Name::parse(rest).map_err(|error| format!("prefix {rest:?}: {error}"))?;
    Ok((prefix, quota))
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a length fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a good name")
    }

    fn parsed(contents: &str) -> Quotas {
        Quotas::parse(contents.as_bytes(), "dev").expect("good quotas")
    }

    #[test]
    fn either_bound_may_be_left_out_and_a_prefix_may_hold_blanks() {
        let quotas =
            parsed("# ours\n/ls/dev/a nodes=1\n\n/ls/dev/b b  bytes=2 # two\n/ls/dev bytes=4\tnodes=3");

        let bounds: Vec<_> = quotas
            .by_prefix
            .iter()
            .map(|(prefix, (quota, _))| (prefix.as_str(), quota.nodes_max, quota.bytes_max))
            .collect();
        assert_eq!(
            bounds,
            [("/ls/dev", Some(3), Some(4)), ("/ls/dev/a", Some(1), None), ("/ls/dev/b b", None, Some(2)),]
        );
    }

    #[test]
    fn a_line_that_is_no_quota_is_refused_with_its_number() {
        let check = |contents: &[u8], detail: &str| {
            let error = Quotas::parse(contents, "dev").expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.detail.contains(detail), "{error}");
        };
        check(b"/ls/dev/a nodes=1\n/ls/dev/b", "line 2: no bound");
        check(b"/ls/dev/a nodes=x", "line 1: nodes=x: not a number");
        check(b"/ls/dev/a nodes=-1", "not a number");
        check(b"/ls/dev/a nodes=", "not a number");
        check(b"/ls/dev/a bytes=18446744073709551616", "not a number");
        check(b"/ls/dev/a nodes=1 nodes=2", "given twice");
        check(b"nodes=1", "no bound");
        check(b"/ls/dev/a/ nodes=1", "component 4 is empty");
        check(b"/ls/prod/a nodes=1", "line 1: /ls/prod/a is not in namespace dev");
        check(b"/ls/dev/a nodes=1\n/ls/dev/a bytes=1", "line 2: a second quota for /ls/dev/a");
        check(b"\n/ls/dev/\xff nodes=1", "line 2: not UTF-8");
    }

    #[test]
    fn what_is_strictly_below_a_prefix_counts() {
        let mut quotas = parsed("/ls/dev/a nodes=2 bytes=10");
        for elsewhere in ["/ls/dev/a", "/ls/dev/ab", "/ls/dev/b"] {
            quotas.add_node(&name(elsewhere), 99);
        }
        quotas.add_node(&name("/ls/dev/a/x"), 4);
        assert_eq!(quotas.check_node(&name("/ls/dev/a/x/y"), 6), Ok(()));
        quotas.add_node(&name("/ls/dev/a/x/y"), 6);

        assert_eq!(quotas.check_node(&name("/ls/dev/a"), 99), Ok(()));
        assert_eq!(quotas.check_node(&name("/ls/dev/ab"), 99), Ok(()));
        let error = quotas.check_node(&name("/ls/dev/a/z"), 0).expect_err("full");
        assert_eq!(error.code, ErrorCode::QuotaExceeded);
        assert_eq!(error.detail, "below /ls/dev/a there are 2 nodes and one more, the quota is 2");
        let error = quotas.check_resize(&name("/ls/dev/a/x"), 4, 5).expect_err("full");
        assert_eq!(error.detail, "below /ls/dev/a there are 10 bytes and 1 more, the quota is 10");
        assert_eq!(quotas.check_resize(&name("/ls/dev/a/x"), 4, 4), Ok(()));

        quotas.remove_node(&name("/ls/dev/a/x/y"), 6);
        assert_eq!(quotas.check_node(&name("/ls/dev/a/z"), 6), Ok(()));
        assert!(quotas.check_node(&name("/ls/dev/a/z"), 7).is_err());
    }
}
