//! The face that every pure machine shows to whoever drives it.

use crate::time::Time;

/// A pure machine: no clock, no randomness, no I/O; the same inputs give the same outputs.
///
/// The driver calls [`handle`](Core::handle) for each input and
/// [`handle_timeout`](Core::handle_timeout) once the time that [`poll_timeout`](Core::poll_timeout)
/// named has come, and after either takes every output until [`poll_output`](Core::poll_output)
/// returns `None`. Outputs must be carried out in their order.
pub trait Core {
    /// What can happen to the machine.
    type Input;
    /// What the machine wants done.
    type Output;

    /// Takes one input in.
    fn handle(&mut self, now: Time, input: Self::Input);

    /// Does what has become due. Calling it early or twice does no harm.
    fn handle_timeout(&mut self, now: Time);

    /// The next thing to do, in order.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// When to call [`handle_timeout`](Core::handle_timeout) at the latest, and why.
    fn poll_timeout(&self) -> Option<(Time, &'static str)>;
}
