//! What a benchmark found: a table for people, one JSON object for programs.
#![allow(clippy::disallowed_methods, reason = "the report of a real run goes to a real file")]

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::{Map, Value, json};

/// All figures of one run, in the order in which they were noted.
#[derive(Clone, Debug)]
pub struct Figures {
    benchmark: &'static str,
    /// What was done, for people.
    setting: String,
    figures: Vec<Figure>,
}

#[derive(Clone, Debug)]
struct Figure {
    key: String,
    label: String,
    value: f64,
    target: Option<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {}", shown(*most)),
            Self::AtLeast(least) => write!(f, ">= {}", shown(*least)),
        }
    }
}

impl Figures {
    /// None yet.
    pub fn new(benchmark: &'static str, setting: impl Into<String>) -> Self {
        Self { benchmark, setting: setting.into(), figures: Vec::new() }
    }

    /// Notes a figure. The key says what and in which unit; the label says it to people.
    pub fn note(&mut self, key: impl Into<String>, label: impl Into<String>, value: f64) {
        self.push(key.into(), label.into(), value, None);
    }

    /// Notes a figure that is to be no greater than `most`.
    pub fn at_most(&mut self, most: f64, key: impl Into<String>, label: impl Into<String>, value: f64) {
        self.push(key.into(), label.into(), value, Some(Target::AtMost(most)));
    }

    /// Notes a figure that is to be no less than `least`.
    pub fn at_least(&mut self, least: f64, key: impl Into<String>, label: impl Into<String>, value: f64) {
        self.push(key.into(), label.into(), value, Some(Target::AtLeast(least)));
    }

    fn push(&mut self, key: String, label: String, value: f64, target: Option<Target>) {
        assert!(self.figures.iter().all(|figure| figure.key != key), "{key} is noted twice");
        self.figures.push(Figure { key, label, value, target });
    }

    /// One object: the benchmark, the setting, `figures` by key, and `missed`: the keys of those whose target
    /// was not reached.
    pub fn to_json(&self) -> Value {
        let number = |figure: &Figure| (figure.key.clone(), json!(figure.value));
        let figures: Map<String, Value> = self.figures.iter().map(number).collect();
        let missed: Vec<&str> =
            self.figures.iter().filter(|figure| !figure.is_met()).map(|figure| &*figure.key).collect();
        json!({"benchmark": self.benchmark, "setting": self.setting, "figures": figures, "missed": missed})
    }

    /// Prints the table, and writes the object to a file if there is one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish(&self, file: Option<&Path>) -> anyhow::Result<()> {
        println!("{self}");
        let Some(file) = file else { return Ok(()) };
        let text = format!("{:#}\n", self.to_json());
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }
}

impl Figure {
    fn is_met(&self) -> bool {
        self.target.is_none_or(|target| target.is_met(self.value))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([self.benchmark, "", "target"]);
        for figure in &self.figures {
            let target = figure.target.map_or_else(String::new, |target| {
                let verdict = if figure.is_met() { "reached" } else { "MISSED" };
                format!("{target} {verdict}")
            });
            let value = Cell::new(shown(figure.value)).set_alignment(CellAlignment::Right);
            table.add_row([Cell::new(&figure.label), value, Cell::new(target)]);
        }
        write!(f, "{}\n{table}", self.setting)
    }
}

/// Three or four digits that matter.
fn shown(value: f64) -> String {
    if value.is_nan() {
        return "none".to_owned();
    }
    match value.abs() {
        0.0 => "0".to_owned(),
        ..10.0 if value.fract() != 0.0 => format!("{value:.2}"),
        ..100.0 if value.fract() != 0.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::new("locks", "64 clients");
        figures.note("count", "cycles", 1_234.0);
        figures.at_least(6_000.0, "cycles_per_s", "cycles/s", 5_999.0);
        figures.at_most(200.0, "cpu_us", "CPU us/cycle", 200.0);
        figures
    }

    #[test]
    fn a_target_that_was_not_reached_is_named() {
        let json = figures().to_json();

        assert_eq!(json["missed"], json!(["cycles_per_s"]));
        assert_eq!(json["figures"]["cpu_us"], json!(200.0));
        let text = figures().to_string();
        assert_eq!(text.matches("MISSED").count(), 1, "{text}");
        assert_eq!(text.matches("reached").count(), 1, "{text}");
    }

    #[test]
    fn what_could_not_be_measured_reaches_no_target() {
        let mut figures = figures();
        figures.at_most(1.0, "nothing_ms", "nothing", f64::NAN);
        figures.at_least(1.0, "nothing_per_s", "nothing", f64::NAN);

        assert_eq!(figures.to_json()["missed"], json!(["cycles_per_s", "nothing_ms", "nothing_per_s"]));
        assert_eq!(figures.to_json()["figures"]["nothing_ms"], Value::Null);
    }

    #[test]
    fn figures_are_shown_with_the_digits_that_matter() {
        let numbers = [0.0, 0.123, 9.876, 12.34, 123.4, 12_345.6, 7.0];

        assert_eq!(numbers.map(shown), ["0", "0.12", "9.88", "12.3", "123", "12346", "7"]);
    }
}
