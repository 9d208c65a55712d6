//! Runs a target on inputs that nobody has thought of, and cuts short the ones it breaks on.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::mutate::Mutator;
use crate::protobuf;
use crate::target::{Shape, Target, Verdict};

/// Most inputs that a pool has.
const POOL_MAX: usize = 4_096;
/// Runs spent on cutting a crashing input short.
const CUTS_MAX: usize = 2_000;

/// An input on which a target panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said.
    pub message: String,
}

/// Runs the target once.
///
/// # Errors
/// It panicked.
pub fn run(target: &Target, input: &[u8]) -> Result<Verdict, Crash> {
    // A target is a function of its input alone: nothing that a panic could leave half done outlives it.
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(message), _) => message.clone(),
            (None, Some(message)) => (*message).to_owned(),
            (None, None) => "a panic without words".to_owned(),
        };
        Crash { input: input.to_vec(), message }
    })
}

/// A search for crashes of one target. The same corpus and seed give the same search.
pub struct Campaign {
    target: &'static Target,
    mutator: Mutator,
    pool: Vec<Vec<u8>>,
    /// How many of the pool came from the corpus.
    given: usize,
    /// Pairs of steps that some trail has, one after the other.
    seen: BTreeSet<(String, String)>,
}

impl Campaign {
    /// Begins with these inputs.
    ///
    /// # Errors
    /// The target panics on one of them.
    pub fn new(target: &'static Target, corpus: Vec<Vec<u8>>, seed: u64) -> Result<Self, Crash> {
        let mut seen = BTreeSet::new();
        for input in &corpus {
            is_new(&mut seen, &run(target, input)?.trail);
        }
        let mut pool = corpus;
        pool.push(Vec::new());
        Ok(Self { target, mutator: Mutator::new(seed), given: pool.len(), pool, seen })
    }

    /// Tries one fresh input.
    ///
    /// # Errors
    /// The target panicked on it.
    pub fn step(&mut self) -> Result<(), Crash> {
        let input = self.mutator.input(self.target.shape, &self.pool);
        let verdict = run(self.target, &input)?;
        if self.pool.len() < POOL_MAX && is_new(&mut self.seen, &verdict.trail) {
            self.pool.push(input);
        }
        Ok(())
    }

    /// The inputs that brought the target somewhere new, in the order they were found.
    pub fn discoveries(&self) -> &[Vec<u8>] {
        &self.pool[self.given..]
    }
}

/// Whether a trail has two steps one after the other that no trail had before; they are remembered.
fn is_new(seen: &mut BTreeSet<(String, String)>, trail: &str) -> bool {
    let mut is_new = false;
    let mut before = "";
    for step in trail.split(';') {
        is_new |= seen.insert((before.to_owned(), step.to_owned()));
        before = step;
    }
    is_new
}

/// A shorter input that breaks the target in the same way, if there is one in reach.
pub fn cut_short(target: &Target, crash: Crash) -> Crash {
    let mut cutting = Cutting { target, shortest: crash, runs: 0 };
    if target.shape == Shape::Messages {
        cutting.fields();
    }
    cutting.pieces();
    cutting.shortest
}

struct Cutting<'a> {
    target: &'a Target,
    shortest: Crash,
    runs: usize,
}

impl Cutting<'_> {
    /// Takes field after field out.
    fn fields(&mut self) {
        let mut which = 0;
        while let Some(input) = protobuf::without(&self.shortest.input, which) {
            match self.breaks(&input) {
                Some(true) => {}
                Some(false) => which += 1,
                None => return,
            }
        }
    }

    /// Takes pieces out: halves, quarters, down to single bytes.
    fn pieces(&mut self) {
        let mut piece = self.shortest.input.len() / 2;
        while piece > 0 {
            let mut from = 0;
            while from < self.shortest.input.len() {
                let mut input = self.shortest.input.clone();
                input.drain(from..input.len().min(from + piece));
                match self.breaks(&input) {
                    Some(true) => {}
                    Some(false) => from += piece,
                    None => return,
                }
            }
            piece /= 2;
        }
    }

    /// Whether this input is as good, and the shortest from here on; `None` if enough has been tried.
    fn breaks(&mut self, input: &[u8]) -> Option<bool> {
        self.runs += 1;
        if self.runs > CUTS_MAX {
            return None;
        }
        match run(self.target, input) {
            Err(crash) if same_place(&crash.message, &self.shortest.message) => {
                self.shortest = crash;
                Some(true)
            }
            Ok(_) | Err(_) => Some(false),
        }
    }
}

/// Panics of one place begin alike, whatever values they name.
fn same_place(one: &str, other: &str) -> bool {
    let beginning =
        |text: &str| text.chars().take_while(|char| !char.is_ascii_digit()).take(24).collect::<String>();
    beginning(one) == beginning(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::{Field, Message, Value};

    /// Breaks on a number in a message in a message that no input of the corpus has.
    static BUGGY: Target = Target { name: "buggy", run: buggy, shape: Shape::Messages, fresh: 0 };

    fn buggy(input: &[u8]) -> Verdict {
        let Some(message) = Message::parse(input) else { return Verdict::refused("not a message") };
        for field in &message.0 {
            if let Field { number: 2, value: Value::Bytes(inner) } = field {
                let inner = Message::parse(inner).unwrap_or_default();
                assert!(!inner.0.contains(&Field::varint(3, u64::MAX)), "the planted bug");
            }
        }
        Verdict::taken("a message")
    }

    #[test]
    fn a_planted_bug_is_found_and_cut_short() {
        let inner = Message(vec![Field::varint(1, 1), Field::varint(3, 1), Field::bytes(4, *b"ballast")]);
        let outer = Message(vec![Field::bytes(1, *b"more ballast"), Field::bytes(2, inner.encode())]);
        let mut campaign = Campaign::new(&BUGGY, vec![outer.encode()], 1).expect("the corpus is fine");

        let crash = (0..20_000).find_map(|_| campaign.step().err()).expect("found");
        let short = cut_short(&BUGGY, crash);

        assert_eq!(short.message, "the planted bug");
        let least = Message(vec![Field::bytes(2, Message(vec![Field::varint(3, u64::MAX)]).encode())]);
        assert_eq!(short.input, least.encode());
    }

    #[test]
    fn a_trail_is_new_if_two_of_its_steps_follow_one_another_for_the_first_time() {
        let mut seen = BTreeSet::new();

        let news = ["a;b;", "a;b;", "b;a;b;", "a;b;a;", "c;"].map(|trail| is_new(&mut seen, trail));

        assert_eq!(news, [true, false, true, true, true]);
    }

    #[test]
    fn a_corpus_that_breaks_its_target_is_no_beginning() {
        let inner = Message(vec![Field::varint(3, u64::MAX)]);
        let input = Message(vec![Field::bytes(2, inner.encode())]).encode();

        let crash = Campaign::new(&BUGGY, vec![input.clone()], 1).err().expect("refused");

        assert_eq!(crash.input, input);
    }
}
