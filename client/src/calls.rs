//! The calls of one handle: which go on, and how all of them are stopped at once.

use std::sync::atomic::{AtomicBool, Ordering};

use hasp_proto::error::ErrorCode;
use tokio::sync::Notify;

use crate::error::CallError;

/// Stops calls; shared by a handle's clones.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    is_closed: AtomicBool,
    is_poisoned: AtomicBool,
    stopped: Notify,
}

impl Calls {
    /// Whether a call may begin. The order of this and of what another thread does is that thread's
    /// business.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        if self.is_closed() {
            return Err(CallError::local(ErrorCode::StaleHandle, "the handle is closed"));
        }
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(CallError::local(ErrorCode::Cancelled, "the handle is poisoned"));
        }
        Ok(())
    }

    /// Runs a call until it is answered or stopped; dropped then, it cancels itself.
    pub(crate) async fn run<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let stopped = self.stopped.notified();
        tokio::pin!(stopped);
        stopped.as_mut().enable();
        self.check()?;
        tokio::select! {
            biased;
            answer = call => answer,
            () = stopped => {
                self.check()?;
                Err(CallError::local(ErrorCode::Cancelled, "the handle's calls were cancelled"))
            }
        }
    }

    /// Stops the calls under way; later ones go on.
    pub(crate) fn cancel(&self) {
        self.stopped.notify_waiters();
    }

    /// Stops the calls under way and all later ones.
    pub(crate) fn poison(&self) {
        self.is_poisoned.store(true, Ordering::Release);
        self.cancel();
    }

    /// Lets no call begin any more; `true` the first time.
    pub(crate) fn close(&self) -> bool {
        !self.is_closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn never() -> Result<(), CallError> {
        std::future::pending().await
    }

    fn code(result: Result<(), CallError>) -> ErrorCode {
        result.expect_err("stopped").code
    }

    #[tokio::test]
    async fn a_cancel_stops_the_calls_under_way_and_no_later_ones() {
        let calls = Calls::default();

        let (first, second, ()) =
            tokio::join!(calls.run(never()), calls.run(never()), async { calls.cancel() });

        assert_eq!((code(first), code(second)), (ErrorCode::Cancelled, ErrorCode::Cancelled));
        assert_eq!(calls.run(async { Ok(()) }).await, Ok(()));
    }

    #[tokio::test]
    async fn poison_stops_the_calls_under_way_and_all_later_ones() {
        let calls = Calls::default();

        let (waiting, ()) = tokio::join!(calls.run(never()), async { calls.poison() });

        assert_eq!(code(waiting), ErrorCode::Cancelled);
        assert_eq!(code(calls.run(async { Ok(()) }).await), ErrorCode::Cancelled);
    }

    #[tokio::test]
    async fn an_answer_that_is_there_is_not_thrown_away_by_a_cancel() {
        let calls = Calls::default();

        let (answered, ()) = tokio::join!(
            calls.run(async {
                tokio::task::yield_now().await;
                Ok(())
            }),
            async { calls.cancel() }
        );

        assert_eq!(answered, Ok(()));
    }

    #[tokio::test]
    async fn a_closed_handle_takes_no_call() {
        let calls = Calls::default();

        assert!(calls.close());

        assert!(!calls.close(), "once");
        assert_eq!(code(calls.run(async { Ok(()) }).await), ErrorCode::StaleHandle);
    }
}
