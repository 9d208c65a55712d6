//! What a load test is after: clients that stay, clients that come and go, or how many there can be.
//!
//! Pure.

use std::str::FromStr;
use std::time::Duration;

use anyhow::ensure;

use super::LoadtestOptions;
use crate::churn::Churn;

/// Steps to the greatest number of clients unless asked for.
const STEPS: usize = 10;
/// More steps take too many processes.
const STEPS_MAX: usize = 100;
/// Visits of clients, at least as many as make a rate: one a second.
const CHURN_PER_S: std::ops::RangeInclusive<f64> = 0.1..=100_000.0;
/// Sizes in one go, at most.
const SIZES_MAX: usize = 20;

/// What is to be found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// How clients fare that open their sessions and keep them.
    #[default]
    Hold,
    /// How it is when others come and go beside them.
    Churn,
    /// How many clients there can be.
    Capacity,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hold, Self::Churn, Self::Capacity];

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Churn => "churn",
            Self::Capacity => "capacity",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let mode = Self::ALL.into_iter().find(|mode| mode.name() == text);
        mode.ok_or_else(|| format!("there is no mode {text:?}: they are {}", names()))
    }
}

impl LoadtestOptions {
    /// Numbers of clients through proxies to be measured one after another; the last is `clients`.
    pub fn sizes(&self) -> Vec<usize> {
        match self.mode {
            Mode::Hold if !self.sizes.is_empty() => self.sizes.clone(),
            Mode::Hold | Mode::Churn => vec![self.clients],
            Mode::Capacity => {
                let step = self.step();
                let sizes = (1..).map(|number: usize| number.saturating_mul(step));
                sizes.take_while(|size| *size < self.clients).chain([self.clients]).collect()
            }
        }
    }

    /// Numbers of clients straight at the masters to be measured, for comparison; none twice.
    pub fn baseline_sizes(&self) -> Vec<usize> {
        let most = self.baseline_clients();
        let sizes = match self.mode {
            Mode::Hold => self.sizes(),
            Mode::Churn | Mode::Capacity => vec![most],
        };
        let mut sizes: Vec<_> =
            sizes.into_iter().map(|size| size.min(most)).filter(|size| *size > 0).collect();
        sizes.dedup();
        sizes
    }

    /// By how many clients the load grows in search of the greatest number.
    pub fn step(&self) -> usize {
        self.step.unwrap_or_else(|| self.clients.div_ceil(STEPS)).max(1)
    }

    /// Clients that come and go beside the others, if they do.
    pub fn churn(&self) -> Option<Churn> {
        let per_s = self.churn_per_s.unwrap_or_else(|| (self.clients as f64 / 100.0).max(1.0));
        (self.mode == Mode::Churn).then_some(Churn { per_s, stay: self.churn_stay, after: Duration::ZERO })
    }

    /// Clients of all kinds that may be there at a time.
    pub(super) fn clients_at_once(&self) -> usize {
        let visitors = self.churn().map_or(0, |churn| churn.at_once());
        self.clients.saturating_add(visitors)
    }

    /// Whether what is asked for besides the mode goes with it.
    pub(super) fn check_mode(&self) -> anyhow::Result<()> {
        ensure!(self.mode == Mode::Churn || self.churn_per_s.is_none(), "--churn-rate needs --mode churn");
        ensure!(self.mode == Mode::Capacity || self.step.is_none(), "--step needs --mode capacity");
        ensure!(
            self.faults.is_empty() || self.mode == Mode::Hold && self.sizes.len() <= 1,
            "--faults needs --mode hold, and one size"
        );
        match self.mode {
            Mode::Hold => self.check_sizes(),
            Mode::Churn => self.check_churn(),
            Mode::Capacity => self.check_capacity(),
        }
    }

    fn check_sizes(&self) -> anyhow::Result<()> {
        if self.sizes.is_empty() {
            return Ok(());
        }
        ensure!(self.sizes.len() <= SIZES_MAX, "--sizes: at most {SIZES_MAX} of them");
        let is_growing = self.sizes.windows(2).all(|pair| pair[0] < pair[1]);
        ensure!(
            self.sizes[0] > 0 && is_growing,
            "--sizes must be at least 1, and each greater than the one before"
        );
        let last = self.sizes.last().copied();
        ensure!(last == Some(self.clients), "--sizes must end with --clients, {}", self.clients);
        Ok(())
    }

    fn check_churn(&self) -> anyhow::Result<()> {
        ensure!(self.sizes.is_empty(), "--sizes needs --mode hold");
        let Some(churn) = self.churn() else { return Ok(()) };
        let (least, most) = CHURN_PER_S.into_inner();
        ensure!(
            CHURN_PER_S.contains(&churn.per_s),
            "--churn-rate must be from {least} to {most} sessions per second"
        );
        let second = Duration::from_secs(1);
        ensure!(churn.stay >= second, "--churn-stay must be at least 1s");
        let needed = churn.stay.saturating_mul(2);
        ensure!(
            self.duration >= needed,
            "--churn-stay {}s needs --duration {}s or more, so that as many go as come for half of it",
            churn.stay.as_secs_f64(),
            needed.as_secs_f64()
        );
        Ok(())
    }

    fn check_capacity(&self) -> anyhow::Result<()> {
        ensure!(self.sizes.is_empty(), "--sizes needs --mode hold; --mode capacity has --step");
        ensure!(self.step != Some(0), "--step must be at least 1");
        ensure!(self.step() <= self.clients, "--step must be at most --clients, {}", self.clients);
        let steps = self.clients.div_ceil(self.step());
        ensure!(
            steps <= STEPS_MAX,
            "--step {} makes {steps} steps to --clients {}: {} would do",
            self.step(),
            self.clients,
            self.clients.div_ceil(STEPS_MAX)
        );
        ensure!(
            self.latency_max >= Duration::from_millis(1),
            "--latency-max must be at least 1ms: no call takes less on a busy machine"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(change: impl FnOnce(&mut LoadtestOptions)) -> LoadtestOptions {
        let mut options = LoadtestOptions::default();
        change(&mut options);
        options
    }

    fn refused(change: impl FnOnce(&mut LoadtestOptions), message: &str) {
        let error = options(change).validate(20_000).expect_err("refused").to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn a_mode_is_known_by_its_name_and_another_is_refused_with_those_that_are() {
        for mode in Mode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        let error = "sprint".parse::<Mode>().expect_err("refused");
        assert!(error.contains("sprint") && error.contains("hold, churn, capacity"), "{error}");
    }

    #[test]
    fn sizes_grow_and_end_with_the_clients() {
        let sizes = |sizes: &[usize], clients| {
            options(|options| (options.sizes, options.clients) = (sizes.to_vec(), clients))
        };

        assert!(sizes(&[1_000, 3_000], 3_000).validate(20_000).is_ok());
        assert_eq!(sizes(&[1_000, 3_000], 3_000).sizes(), [1_000, 3_000]);
        assert_eq!(options(|_| {}).sizes(), [3_000]);
        for (wrong, clients) in [(&[3_000, 1_000][..], 1_000), (&[0, 10], 10), (&[10, 10], 10)] {
            let error = sizes(wrong, clients).validate(20_000).expect_err("refused").to_string();
            assert!(error.contains("each greater"), "{error}");
        }
        let error = sizes(&[1_000, 2_000], 3_000).validate(20_000).expect_err("refused").to_string();
        assert!(error.contains("must end with --clients"), "{error}");
        refused(|options| (options.sizes, options.mode) = (vec![3_000], Mode::Churn), "--mode hold");
        refused(|options| (options.sizes, options.mode) = (vec![3_000], Mode::Capacity), "--step");
    }

    #[test]
    fn the_baseline_is_measured_at_each_size_that_the_masters_may_have_and_once() {
        let of = |baseline_clients| {
            let change = |options: &mut LoadtestOptions| {
                options.sizes = vec![1_000, 10_000, 90_000];
                (options.clients, options.baseline_clients) = (90_000, baseline_clients);
            };
            options(change).baseline_sizes()
        };

        assert_eq!(of(None), [1_000, 3_000]);
        assert_eq!(of(Some(19_000)), [1_000, 10_000, 19_000]);
        assert!(of(Some(0)).is_empty());
        assert!(
            options(|options| options.mode = Mode::Capacity).baseline_sizes().is_empty(),
            "unless asked for"
        );
    }

    #[test]
    fn capacity_is_looked_for_in_steps_up_to_the_clients() {
        let sizes = |clients, step| {
            options(|options| (options.mode, options.clients, options.step) = (Mode::Capacity, clients, step))
                .sizes()
        };

        assert_eq!(sizes(1_000, Some(400)), [400, 800, 1_000]);
        assert_eq!(sizes(800, Some(400)), [400, 800]);
        assert_eq!(sizes(3_000, None).len(), 10);
        assert_eq!(sizes(5, None), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn steps_that_make_no_sense_are_refused() {
        let capacity = |step| {
            move |options: &mut LoadtestOptions| (options.mode, options.step) = (Mode::Capacity, Some(step))
        };

        assert!(options(capacity(300)).validate(20_000).is_ok());
        refused(capacity(0), "--step must be at least 1");
        refused(capacity(3_001), "--step must be at most --clients, 3000");
        refused(capacity(29), "30 would do");
        refused(|options| options.step = Some(300), "--step needs --mode capacity");
        refused(
            |options| (options.mode, options.latency_max) = (Mode::Capacity, Duration::ZERO),
            "--latency-max",
        );
    }

    #[test]
    fn churn_has_a_rate_and_time_for_as_many_to_go_as_come() {
        let churn = |per_s, stay_s| {
            move |options: &mut LoadtestOptions| {
                options.mode = Mode::Churn;
                (options.churn_per_s, options.churn_stay) = (per_s, Duration::from_secs(stay_s));
            }
        };

        let good = options(churn(None, 5));
        assert!(good.validate(20_000).is_ok());
        assert_eq!(good.churn().map(|churn| churn.per_s), Some(30.0), "one in a hundred clients each second");
        assert!(options(churn(Some(100.0), 15)).validate(20_000).is_ok());
        refused(churn(Some(100.0), 16), "--duration 32s");
        refused(churn(Some(0.0), 5), "--churn-rate");
        refused(churn(Some(f64::NAN), 5), "--churn-rate");
        refused(churn(None, 0), "--churn-stay");
        refused(churn(Some(50_000.0), 5), "--proxies");
        refused(|options| options.churn_per_s = Some(1.0), "--churn-rate needs --mode churn");
        assert_eq!(options(|_| {}).churn(), None);
    }

    #[test]
    fn faults_are_done_to_clients_that_stay() {
        let faulty = |mode| {
            move |options: &mut LoadtestOptions| {
                (options.mode, options.faults) = (mode, vec![crate::faults::Fault::ProxyKill]);
            }
        };

        assert!(options(faulty(Mode::Hold)).validate(20_000).is_ok());
        refused(faulty(Mode::Churn), "--faults needs --mode hold");
        refused(faulty(Mode::Capacity), "--faults needs --mode hold");
    }
}
