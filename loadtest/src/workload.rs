//! What the clients do and when: the operation mix, its rates, and the moments of arrival.
//!
//! Pure. Arrivals are an open loop: each has an intended moment that does not wait for earlier
//! operations, so a slow service cannot make the test ask less of it. Independent clients with a
//! small rate each are the same as one stream of arrivals that picks a client by chance, which
//! needs no timer per client.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hasp_rt::rng::Rng;
use serde::{Deserialize, Serialize};

/// KeepAlives per client and second at the default lease: one per two thirds of 12 s (`ka-1`).
pub const KEEP_ALIVES_PER_S: f64 = 1.0 / 8.0;

/// Share of KeepAlives among all calls in the paper's table (§4.1).
const PAPER_KEEP_ALIVE_SHARE: f64 = 0.93;

/// Shares of the other calls in the paper's table (§4.1).
const PAPER_SHARES: [(OpKind, f64); 6] = [
    (OpKind::GetStat, 0.02),
    (OpKind::Open, 0.01),
    (OpKind::CreateSession, 0.01),
    (OpKind::GetContentsAndStat, 0.004),
    (OpKind::SetContents, 680e-6),
    (OpKind::Acquire, 31e-6),
];

/// The name of the mix in directories that are spread over all cells.
const PARTITIONED: &str = "partitioned";

/// Its shares: names are resolved, read, written and locked in every cell.
const PARTITIONED_SHARES: [(OpKind, f64); 6] = [
    (OpKind::GetStat, 0.2),
    (OpKind::Open, 0.2),
    (OpKind::CreateSession, 0.01),
    (OpKind::GetContentsAndStat, 0.3),
    (OpKind::SetContents, 0.19),
    (OpKind::Acquire, 0.1),
];

/// Its operations per second and client, unless asked for otherwise.
const PARTITIONED_PER_S: f64 = 0.1;

/// Rarer operations of the default mix are raised to this many per second over all clients, so
/// that half a minute gives percentiles of each. But for `CreateSession`: such a session sends a
/// KeepAlive of its own, and more of them than the paper has would blur the count of KeepAlives.
pub const FLOOR_PER_S: f64 = 5.0;

/// What a client does besides keeping its session alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Metadata of the client's file.
    GetStat,
    /// Another handle on the client's file.
    Open,
    /// A short-lived session besides the client's own.
    CreateSession,
    /// Contents and metadata of the client's file.
    GetContentsAndStat,
    /// New contents of the client's file.
    SetContents,
    /// A lock that other clients want too, exclusive.
    Acquire,
}

impl OpKind {
    /// All of them, in the order of reports.
    pub const ALL: [OpKind; 6] = [
        Self::GetStat,
        Self::Open,
        Self::CreateSession,
        Self::GetContentsAndStat,
        Self::SetContents,
        Self::Acquire,
    ];

    /// As in `--mix` and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetStat => "get_stat",
            Self::Open => "open",
            Self::CreateSession => "create_session",
            Self::GetContentsAndStat => "get_contents_and_stat",
            Self::SetContents => "set_contents",
            Self::Acquire => "acquire",
        }
    }

    /// Place in [`OpKind::ALL`].
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).expect("ALL holds every kind")
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each operation is wanted, relative to the others; indexed as [`OpKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    weights: [f64; 6],
    /// In directories that are spread over all cells.
    is_partitioned: bool,
}

/// Why some text is no mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixError(String);

impl fmt::Display for MixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MixError {}

impl Mix {
    /// The paper's table.
    pub fn paper() -> Self {
        Self::of_shares(&PAPER_SHARES, false)
    }

    /// Names are opened, read, written and locked in directories that are spread over all cells.
    pub fn partitioned() -> Self {
        Self::of_shares(&PARTITIONED_SHARES, true)
    }

    fn of_shares(shares: &[(OpKind, f64)], is_partitioned: bool) -> Self {
        let mut weights = [0.0; 6];
        for (kind, share) in shares {
            weights[kind.index()] = *share;
        }
        Self { weights, is_partitioned }
    }

    /// Whether its directories are to be spread over all cells.
    pub const fn is_partitioned(&self) -> bool {
        self.is_partitioned
    }

    /// Operations per second and client, if nothing else is asked for: as many as stand to the KeepAlives as in the
    /// paper's table, or what is usual in spread directories.
    pub fn usual_total(&self) -> f64 {
        if self.is_partitioned { PARTITIONED_PER_S } else { Rates::paper_total() }
    }

    /// The weight of one operation.
    pub fn weight(&self, kind: OpKind) -> f64 {
        self.weights[kind.index()]
    }

    fn total(&self) -> f64 {
        self.weights.iter().sum()
    }
}

impl FromStr for Mix {
    type Err = MixError;

    /// Reads `get_stat=2,open=1`, where what is not named is not done, or `partitioned`.
    fn from_str(text: &str) -> Result<Self, MixError> {
        if text == PARTITIONED {
            return Ok(Self::partitioned());
        }
        let names = OpKind::ALL.map(OpKind::name).join(", ");
        let mut weights = [0.0; 6];
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, weight) =
                part.split_once('=').ok_or_else(|| MixError(format!("{part:?} is not NAME=WEIGHT")))?;
            let kind = OpKind::ALL.into_iter().find(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(|| MixError(format!("no operation {name:?}; there are {names}")))?;
            let weight: f64 =
                weight.trim().parse().map_err(|_| MixError(format!("{weight:?} is not a number")))?;
            if !weight.is_finite() || weight < 0.0 {
                return Err(MixError(format!("the weight of {name} must be a number from 0 up")));
            }
            weights[kind.index()] = weight;
        }
        let mix = Self { weights, is_partitioned: false };
        if mix.total() > 0.0 { Ok(mix) } else { Err(MixError("every weight is zero".into())) }
    }
}

/// Operations per second and client, indexed as [`OpKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates([f64; 6]);

impl Rates {
    /// The paper's ratio of KeepAlives to other calls at our KeepAlive rate, rare operations raised
    /// to [`FLOOR_PER_S`] over all `clients`.
    pub fn paper(clients: usize) -> Self {
        let floor = FLOOR_PER_S / clients.max(1) as f64;
        let mut rates = Self::of_mix(&Mix::paper(), Self::paper_total());
        for kind in OpKind::ALL.into_iter().filter(|kind| *kind != OpKind::CreateSession) {
            let rate = &mut rates.0[kind.index()];
            *rate = rate.max(floor);
        }
        rates
    }

    /// `total` operations per second and client, divided as in `mix`.
    pub fn of_mix(mix: &Mix, total: f64) -> Self {
        Self(mix.weights.map(|weight| weight / mix.total() * total))
    }

    /// Operations per second and client that stand to our KeepAlives as in the paper's table.
    pub fn paper_total() -> f64 {
        Mix::paper().total() / PAPER_KEEP_ALIVE_SHARE * KEEP_ALIVES_PER_S
    }

    /// Of one operation.
    pub fn of(&self, kind: OpKind) -> f64 {
        self.0[kind.index()]
    }

    /// Of all operations.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// One operation to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// When, since the load began.
    pub at: Duration,
    /// What.
    pub kind: OpKind,
    /// By which client, from 0.
    pub client: usize,
    /// For choices the operation makes.
    pub salt: u64,
}

/// An endless Poisson stream of arrivals.
pub struct Arrivals {
    rng: Rng,
    rates: Rates,
    clients: usize,
    at_s: f64,
}

impl Arrivals {
    /// Arrivals for `clients` clients with these rates each.
    pub fn new(rng: Rng, rates: Rates, clients: usize) -> Self {
        Self { rng, rates, clients, at_s: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    /// The next arrival, never before the one before; `None` if nothing is wanted at all.
    fn next(&mut self) -> Option<Arrival> {
        let total = self.rates.total() * self.clients as f64;
        if total <= 0.0 {
            return None;
        }
        self.at_s += -(1.0 - unit(&mut self.rng)).ln() / total;
        let mut left = unit(&mut self.rng) * self.rates.total();
        let wanted = OpKind::ALL.into_iter().filter(|kind| self.rates.of(*kind) > 0.0);
        let mut chosen = OpKind::GetStat;
        for kind in wanted {
            chosen = kind;
            left -= self.rates.of(kind);
            if left < 0.0 {
                break;
            }
        }
        let client = self.rng.below(self.clients as u64) as usize;
        Some(Arrival {
            at: Duration::from_secs_f64(self.at_s),
            kind: chosen,
            client,
            salt: self.rng.below(u64::MAX),
        })
    }
}

/// Uniform in [0, 1).
fn unit(rng: &mut Rng) -> f64 {
    const STEPS: u64 = 1 << 53;
    rng.below(STEPS) as f64 / STEPS as f64
}

/// A file's size in bytes, spread as in the paper's table (§4.1): 90% to 1 kB, 10% to 10 kB, 0.2%
/// larger, here to 32 kB. Follows from `salt` alone.
pub fn file_bytes(salt: u64) -> usize {
    let within = (salt >> 16) as usize;
    match salt % 1_000 {
        0..898 => 64 + within % 960,
        898..998 => 1_024 + within % 9_216,
        _ => 10_240 + within % 22_528,
    }
}

#[cfg(test)]
mod tests {
    use hasp_rt::rng::Seeds;

    use super::*;

    fn arrivals(rates: Rates, clients: usize) -> Arrivals {
        Arrivals::new(Seeds::from_seed(7).stream("arrivals"), rates, clients)
    }

    #[test]
    fn the_paper_total_stands_to_keep_alives_as_in_its_table() {
        let ratio = Rates::paper_total() / KEEP_ALIVES_PER_S;

        assert!((ratio - 0.044_711 / 0.93).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn rare_operations_are_raised_to_the_floor_and_common_ones_are_not() {
        let rates = Rates::paper(3_000);

        assert!((rates.of(OpKind::Acquire) * 3_000.0 - FLOOR_PER_S).abs() < 1e-9);
        assert!((rates.of(OpKind::SetContents) * 3_000.0 - FLOOR_PER_S).abs() < 1e-9);
        assert!((rates.of(OpKind::GetStat) - 0.02 / 0.93 / 8.0).abs() < 1e-9);
        assert!((Rates::paper(10).of(OpKind::CreateSession) - 0.01 / 0.93 / 8.0).abs() < 1e-9);
    }

    #[test]
    fn a_mix_divides_the_rate_by_its_weights() {
        let mix: Mix = "get_stat=3, open=1".parse().expect("a mix");

        let rates = Rates::of_mix(&mix, 2.0);

        assert_eq!(rates.of(OpKind::GetStat), 1.5);
        assert_eq!(rates.of(OpKind::Open), 0.5);
        assert_eq!(rates.of(OpKind::Acquire), 0.0);
    }

    #[test]
    fn the_partitioned_mix_does_everything_in_every_cell() {
        let mix: Mix = "partitioned".parse().expect("a mix");

        assert!(mix.is_partitioned() && !Mix::paper().is_partitioned());
        assert!(OpKind::ALL.into_iter().all(|kind| mix.weight(kind) > 0.0));
        assert!((mix.total() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_bad_mix_is_refused_with_what_is_wrong() {
        let check = |text: &str, message: &str| {
            let error = text.parse::<Mix>().expect_err("refused").to_string();
            assert!(error.contains(message), "{error}");
        };
        check("", "every weight is zero");
        check("get_stat", "not NAME=WEIGHT");
        check("fly=1", "no operation \"fly\"");
        check("open=x", "not a number");
        check("open=-1", "from 0 up");
    }

    #[test]
    fn arrivals_keep_their_rate_and_never_go_back() {
        let rates = Rates::of_mix(&Mix::paper(), 0.5);
        let all: Vec<_> = arrivals(rates, 200).take(10_000).collect();

        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(all.iter().all(|arrival| arrival.client < 200));
        let took = all[9_999].at.as_secs_f64();
        assert!((took - 100.0).abs() < 5.0, "10,000 at 100 per second took {took} s");
        let stats = all.iter().filter(|arrival| arrival.kind == OpKind::GetStat).count() as f64;
        assert!((stats / 10_000.0 - 0.02 / 0.044_711).abs() < 0.03, "{stats}");
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        let rates = Rates::paper(100);

        let (one, other): (Vec<_>, Vec<_>) =
            (arrivals(rates, 100).take(50).collect(), arrivals(rates, 100).take(50).collect());

        assert_eq!(one, other);
    }

    #[test]
    fn operations_of_weight_zero_never_arrive() {
        let mix: Mix = "acquire=1".parse().expect("a mix");

        let all = arrivals(Rates::of_mix(&mix, 1.0), 3).take(500);

        assert!(all.into_iter().all(|arrival| arrival.kind == OpKind::Acquire));
    }

    #[test]
    fn most_files_are_small_and_none_is_too_large() {
        let sizes: Vec<_> =
            (0..10_000u64).map(|i| file_bytes(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();

        let small = sizes.iter().filter(|bytes| **bytes <= 1_024).count();
        assert!((8_800..=9_200).contains(&small), "{small}");
        assert!(sizes.iter().all(|bytes| (64..=32_768).contains(bytes)));
    }
}
