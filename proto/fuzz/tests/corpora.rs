//! Replays the whole corpus, and tries a bounded number of fresh inputs, the same in every run.

use hasp_fuzz::campaign::{Campaign, run};
use hasp_fuzz::{all, corpus, seeds};

#[test]
fn nothing_in_the_corpus_breaks_its_target() {
    for target in all() {
        for input in corpus::read(target).expect("the corpus is readable") {
            if let Err(crash) = run(target, &input.bytes) {
                panic!("{}/{}: {}", target.name, input.name, crash.message);
            }
        }
    }
}

#[test]
fn what_was_taken_once_is_taken_for_ever() {
    for target in all() {
        let inputs = corpus::read(target).expect("the corpus is readable");
        let seeds = inputs.iter().filter(|input| input.name.starts_with("seed-"));
        assert!(
            seeds.clone().count() > 0,
            "{} has no seed: cargo run -p hasp-fuzz -- --write-seeds",
            target.name
        );
        for seed in seeds {
            let verdict = run(target, &seed.bytes).expect("checked by another test");
            assert!(verdict.taken, "{}/{}: {}", target.name, seed.name, verdict.trail);
        }
    }
}

#[test]
fn every_seed_that_is_made_is_in_the_corpus_by_its_name() {
    for target in all() {
        let inputs = corpus::read(target).expect("the corpus is readable");
        for seed in seeds::of(target) {
            assert!(inputs.iter().any(|input| input.name == seed.name), "{}/{}", target.name, seed.name);
            assert!(
                run(target, &seed.bytes).is_ok_and(|verdict| verdict.taken),
                "{}/{}",
                target.name,
                seed.name
            );
        }
    }
}

#[test]
fn fresh_inputs_break_nothing() {
    for target in all() {
        let inputs = corpus::read(target).expect("the corpus is readable");
        let inputs = inputs.into_iter().map(|input| input.bytes).collect();
        let mut campaign = Campaign::new(target, inputs, 0).expect("checked by another test");
        for number in 0..target.fresh {
            if let Err(crash) = campaign.step() {
                let name = target.name;
                panic!(
                    "{name}: input {number}: {}\ncargo xtask fuzz {name} saves it in the corpus",
                    crash.message
                );
            }
        }
    }
}
