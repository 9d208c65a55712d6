//! Worlds whose panics are violations like others.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check;
use super::plan::Setting;
use super::verdict::{Counts, Verdict};
use super::world::{World, run};

/// Runs the world of a seed; what panics in it is told as what was broken.
pub fn guarded(seed: u64, setting: Setting) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| run(seed, setting, false))).unwrap_or_else(|panic| {
        let broken = vec![said(&*panic)];
        Verdict { seed, broken, counts: Counts::default(), fingerprint: 0, story: Vec::new() }
    })
}

/// Checks everything; a check that panics does not hide what the others find.
pub fn check_all(world: &mut World) {
    let checked = catch_unwind(AssertUnwindSafe(|| check::everything(world)));
    if let Err(panic) = checked {
        world.broken.extend(check::history(&world.history).broken);
        world.broken.push(said(&*panic));
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or_default())
}
