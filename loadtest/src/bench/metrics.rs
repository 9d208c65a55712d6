//! What a server shows to scrapers, for figures that its status does not have.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real servers of a real machine are asked here, never simulated ones"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a server may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// One look at the metrics of a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Asks the admin port of a server.
    ///
    /// # Errors
    /// It is not reached, does not answer in time, or answers with something else.
    pub async fn take(admin: &str) -> anyhow::Result<Self> {
        let asking = async {
            let mut stream = TcpStream::connect(admin).await?;
            let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let asked = tokio::time::timeout(DEADLINE, asking).await;
        let answer = asked.with_context(|| format!("ask {admin} for its metrics: no answer in time"))?;
        let answer = answer.with_context(|| format!("ask {admin} for its metrics"))?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "ask {admin} for its metrics: {}",
            answer.lines().next().unwrap_or("nothing")
        );
        Ok(Self::of(&answer))
    }

    /// Reads lines of a name and a number; every other line is not for us.
    fn of(text: &str) -> Self {
        let line = |line: &str| {
            let (name, value) = line.trim_end().rsplit_once(' ')?;
            (!name.starts_with('#')).then_some(())?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// The metric of that name.
    ///
    /// # Errors
    /// The server shows none.
    pub fn value(&self, name: &str) -> anyhow::Result<f64> {
        self.0.get(name).copied().with_context(|| format!("look for the metric {name}: there is none"))
    }

    /// By how much a counter has grown since an earlier look.
    ///
    /// # Errors
    /// As [`value`](Self::value), in either look.
    pub fn grown(&self, since: &Self, name: &str) -> anyhow::Result<f64> {
        Ok(self.value(name)? - since.value(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names_and_the_rest_is_passed_over() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n# HELP hasp_hits Hits 7\nhasp_hits_total 12\n\
                    hasp_cell_x{cell=\"a\"} 0.5\n# EOF\n";

        let look = Scrape::of(text);

        assert_eq!(look.value("hasp_hits_total").ok(), Some(12.0));
        assert_eq!(look.value("hasp_cell_x{cell=\"a\"}").ok(), Some(0.5));
        let error = look.value("hasp_misses_total").expect_err("there is none").to_string();
        assert!(error.contains("hasp_misses_total"), "{error}");
        assert!(look.value("# HELP hasp_hits Hits").is_err());
    }

    #[test]
    fn growth_is_the_difference_of_two_looks_and_needs_both() {
        let (before, after) = (Scrape::of("a 3\n"), Scrape::of("a 10\nb 1\n"));

        assert_eq!(after.grown(&before, "a").ok(), Some(7.0));
        assert!(after.grown(&before, "b").is_err());
    }
}
