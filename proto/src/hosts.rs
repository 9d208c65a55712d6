//! The list of a service's proxies, as its file in the namespace says it: `/ls/<ns>/.hasp/proxies` (design §4.1). A line for
//! each, `HOST:PORT`; what follows a `#` is for people.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorCode};

/// Where the file is, below the namespace's root.
pub const PROXIES_FILE: &str = ".hasp/proxies";
/// Most proxies in a list.
pub const PROXIES_MAX: usize = 10_000;
/// Longest address, in bytes: of a DNS name, and its port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;

/// The addresses that the file lists, in its order.
///
/// # Errors
/// `InvalidArgument`: the line that is no address, or stands twice; or there are too many.
pub fn parse(contents: &[u8]) -> Result<Vec<String>, Error> {
    let invalid = |detail: String| ErrorCode::InvalidArgument.because(format!("list of proxies: {detail}"));
    let text = std::str::from_utf8(contents).map_err(|_| invalid("not UTF-8".into()))?;
    let (mut seen, mut hosts) = (BTreeSet::new(), Vec::new());
    for (place, line) in text.lines().enumerate() {
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        if !is_address(address) {
            return Err(invalid(format!("line {}: {address:?} is not HOST:PORT", place + 1)));
        }
        if !seen.insert(address) {
            return Err(invalid(format!("line {}: {address} is listed twice", place + 1)));
        }
        hosts.push(address.to_owned());
    }
    if hosts.len() > PROXIES_MAX {
        return Err(invalid(format!("{} proxies, at most {PROXIES_MAX}", hosts.len())));
    }
    Ok(hosts)
}

/// Whether this is `HOST:PORT`, with a port that can be connected to.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    let is_host =
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
    let is_plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    text.len() <= ADDRESS_BYTES_MAX && is_port && is_host && is_plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_addresses_and_the_rest_is_for_people() {
        let text = b"# the tier of this site\nproxy-1:7001\n\n  proxy-2:7001  # rack 4\n[::1]:7001\n";

        assert_eq!(
            parse(text),
            Ok(["proxy-1:7001", "proxy-2:7001", "[::1]:7001"].map(str::to_owned).to_vec())
        );
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let check = |text: &[u8], wanted: &str| {
            let error = parse(text).expect_err("bad");
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.detail.contains(wanted), "{error}");
        };
        check(b"a:1\nb\n", "line 2: \"b\" is not HOST:PORT");
        check(b"a:0", "line 1");
        check(b"a:65536", "line 1");
        check(b":7001", "line 1");
        check(b"::1:7001", "line 1");
        check(b"http://a:1", "line 1");
        check(b"a b:1", "line 1");
        check(b"a:1\n#\na:1", "line 3: a:1 is listed twice");
        check(b"\xff:1", "not UTF-8");
        let many: String = (0..=PROXIES_MAX).map(|at| format!("p{at}:1\n")).collect();
        check(many.as_bytes(), "10001 proxies, at most 10000");
    }
}
