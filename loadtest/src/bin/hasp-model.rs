//! Searches the models of the protocol for broken promises, and shows that what is left out of it is missed.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hasp_loadtest::model::{
    Directories, Fills, Found, Limits, Moves, Omission, Order, Plan, Protocol, search, search_widely,
};
use hasp_rt::clock::{Clock as _, SystemClock};

/// States that each omission gets to be seen.
const OMISSION_STATES: usize = 5_000_000;
/// And the time.
const OMISSION_TIME: Duration = Duration::from_secs(600);
/// States between two lines about how far a search has come.
const PROGRESS: usize = 1_000_000;
/// With so many states of all models together, each model must come to what shows that its search means something.
const MEANINGFUL_STATES: usize = 100_000;

/// The protocol's machines, state by state: every order of what may happen, within bounds.
#[derive(Parser)]
struct Cli {
    /// Different states, of all models together
    #[arg(long, default_value_t = 1_000_000)]
    states: usize,
    /// Look at nothing more after so many minutes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only that model: fills, directories, directories-large, moves, moves-ended, moves-large, cache, fail-over, tier, claims or once
    #[arg(long)]
    model: Option<String>,
    /// Leave that out of the protocol, and show what becomes of it
    #[arg(long, value_parser = named)]
    omission: Option<Omission>,
    /// Leave out one thing after the other: each must show
    #[arg(long)]
    omissions: bool,
    /// Look at states in parallel
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn named(name: &str) -> Result<Omission, String> {
    let names = || Omission::ALL.map(Omission::name).join(", ");
    Omission::named(name).ok_or_else(|| format!("one of: {}", names()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_good = if let Some(omission) = cli.omission {
        is_missed(omission, cli.threads)
    } else if cli.omissions {
        // All of them, also after one that is not missed.
        Omission::ALL.into_iter().filter(|omission| !is_missed(*omission, cli.threads)).count() == 0
    } else {
        keeps_its_promises(&cli)
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_missed(omission: Omission, threads: usize) -> bool {
    let limits = Limits { states: OMISSION_STATES, time: OMISSION_TIME, threads };
    let found = match Plan::without(omission) {
        Some(plan) => search(&Protocol::new(plan), Order::Breadth, limits, |_| {}),
        None if omission.is_of_directories() => {
            search(&Directories::without(omission), Order::Breadth, limits, |_| {})
        }
        None if omission.is_of_moves() => search(&Moves::without(omission), Order::Breadth, limits, |_| {}),
        None => search(&Fills::without(omission), Order::Breadth, limits, |_| {}),
    };
    println!("without what keeps {omission} from happening:");
    tell(&found);
    if found.counterexample.is_none() {
        println!("{omission} SURVIVES");
    }
    found.counterexample.is_some()
}

fn keeps_its_promises(cli: &Cli) -> bool {
    let began = SystemClock.now();
    let mut models: Vec<Box<dyn Fn(Limits) -> Found>> = Vec::new();
    let is_meant = |name: &str| cli.model.as_deref().is_none_or(|only| only == name);
    if is_meant("fills") {
        models.push(Box::new(|limits| search(&Fills::new(), Order::Depth, limits, progress("fills"))));
    }
    if is_meant("directories") {
        models.push(Box::new(|limits| {
            search(&Directories::new(), Order::Depth, limits, progress("directories"))
        }));
    }
    if is_meant("moves") {
        models.push(Box::new(|limits| search_widely(&Moves::new(), limits, progress("moves"))));
    }
    if cli.model.as_deref() == Some("moves-ended") {
        models
            .push(Box::new(|limits| search(&Moves::ended(), Order::Depth, limits, progress("moves-ended"))));
    }
    if cli.model.as_deref() == Some("moves-large") {
        models.push(Box::new(|limits| search_widely(&Moves::large(), limits, progress("moves-large"))));
    }
    if cli.model.as_deref() == Some("directories-large") {
        models.push(Box::new(|limits| {
            search(&Directories::large(), Order::Depth, limits, progress("directories-large"))
        }));
    }
    for plan in Plan::all().into_iter().filter(|plan| is_meant(plan.name)) {
        models.push(Box::new(move |limits| {
            search_widely(&Protocol::new(plan.clone()), limits, progress(plan.name))
        }));
    }
    let (mut states, mut is_good, mut is_complete) = (0, true, true);
    let all = models.len();
    for (at, model) in models.into_iter().enumerate() {
        let models_left = all - at;
        let time =
            Duration::from_secs(60 * cli.minutes).saturating_sub(SystemClock.now().saturating_since(began));
        let limits = Limits {
            states: (cli.states.saturating_sub(states) / models_left).max(1),
            time: time / u32::try_from(models_left).expect("few"),
            threads: cli.threads,
        };
        let found = model(limits);
        tell(&found);
        states += found.states;
        is_good &= found.counterexample.is_none() && means_something(&found, cli.states);
        is_complete &= found.is_complete;
    }
    println!("{states} states{}", if is_complete { ", complete" } else { "" });
    if states < cli.states && !is_complete {
        println!("fewer than {} were looked at", cli.states);
        return false;
    }
    is_good && states > 0
}

/// Whether all came about that should, as far as so many states can say.
fn means_something(found: &Found, states: usize) -> bool {
    let may_say = found.is_complete || states >= MEANINGFUL_STATES;
    let says_nothing = may_say && found.counterexample.is_none() && !found.missing.is_empty();
    if says_nothing {
        println!("{}: THE SEARCH SAYS NOTHING of what did not come about", found.name);
    }
    !says_nothing
}

fn progress(name: &'static str) -> impl FnMut(usize) {
    let mut told = 0;
    move |states| {
        if states >= told + PROGRESS {
            told = states;
            println!("{name}: {states} states so far");
        }
    }
}

fn tell(found: &Found) {
    let complete = if found.is_complete { ", complete" } else { "" };
    println!(
        "{}: {} states{complete} ({} reached, ways of {} actions at most) in {:.1} s, {:.0} a second",
        found.name,
        found.states,
        found.reached,
        found.depth.saturating_sub(1),
        found.took.as_secs_f64(),
        found.per_second(),
    );
    if let Some(counterexample) = &found.counterexample {
        println!("{} is broken after {} actions:", counterexample.promise, counterexample.actions);
        counterexample.story.iter().for_each(|line| println!("  {line}"));
    }
    if found.counterexample.is_none() && !found.missing.is_empty() {
        println!("  did not come about, so far as was looked: {}", found.missing.join("; "));
    }
}
