//! What the user sees while the load test works: a live line on a terminal, plain lines elsewhere.
//!
//! All of it goes to standard error; standard output is for the result.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use hasp_proto::time::Time;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is printed while something goes on.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// How often the live line turns.
const TICK: Duration = Duration::from_millis(120);

/// Where progress is shown.
pub struct Progress {
    bar: Option<ProgressBar>,
    last_plain: Mutex<Option<Time>>,
}

impl Progress {
    /// On standard error: live if that is a terminal.
    pub fn on_stderr() -> Self {
        let bar = std::io::stderr().is_terminal().then(live_line);
        Self { bar, last_plain: Mutex::new(None) }
    }

    /// Nowhere.
    pub fn hidden() -> Self {
        Self { bar: Some(ProgressBar::hidden()), last_plain: Mutex::new(None) }
    }

    /// Something else begins.
    pub fn step(&self, text: &str) {
        *self.last_plain.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match &self.bar {
            Some(bar) => {
                bar.println(format!("  {text}"));
                bar.set_length(1);
                bar.set_position(0);
                bar.set_message("");
            }
            None => eprintln!("{text}"),
        }
    }

    /// `done` of `total` is done, and this is how it stands at `now`.
    pub fn at(&self, now: Time, done: u64, total: u64, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total.max(1));
                bar.set_position(done.min(total));
                bar.set_message(text.to_owned());
            }
            None => {
                let mut last = self.last_plain.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_none_or(|last| now.saturating_since(last) >= PLAIN_EVERY) {
                    *last = Some(now);
                    eprintln!("  {text}");
                }
            }
        }
    }

    /// Clears the live line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn live_line() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{spinner} [{bar:24}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(TICK);
    bar
}
