//! How a machine is driven: as the services drive it, in one thread.

use hasp_proto::machine::Core;
use hasp_proto::time::Time;

/// How often in a row a machine may say that something is still due.
const ROUNDS_MAX: usize = 64;

/// Lets a machine do what is due, takes the inputs in, and does what is due then, as the driver of the services does.
/// Says when it wants to be woken.
pub fn drive<C: Core>(
    core: &mut C,
    now: Time,
    inputs: impl IntoIterator<Item = C::Input>,
    outputs: &mut Vec<C::Output>,
) -> Option<Time> {
    let is_due = |core: &C| core.poll_timeout().is_some_and(|(at, _)| at <= now);
    if is_due(core) {
        core.handle_timeout(now);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    for input in inputs {
        core.handle(now, input);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    let mut rounds = 0;
    while is_due(core) {
        assert!(
            rounds < ROUNDS_MAX,
            "a machine says for ever that something is due: {:?}",
            core.poll_timeout()
        );
        rounds += 1;
        core.handle_timeout(now);
        outputs.extend(std::iter::from_fn(|| core.poll_output()));
    }
    core.poll_timeout().map(|(at, _)| at)
}
