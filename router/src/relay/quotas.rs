//! What one client may take up: open handles, and requests that wait for locks (P-FAIR). Counted at the
//! host that its session is with; for the clients of a proxy that is the proxy.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{RequestNumber, SessionId};
use hasp_proto::limits::{HANDLES_PER_CLIENT, LOCK_WAITS_PER_CLIENT};
use hasp_proto::request::Op;

/// What each session takes up; sessions without anything are not listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Quotas {
    /// The `Open`s that made, or are to make, the handles that are not closed.
    handles: BTreeMap<SessionId, BTreeSet<RequestNumber>>,
    /// The `Acquire`s without an answer.
    waits: BTreeMap<SessionId, BTreeSet<RequestNumber>>,
}

impl Quotas {
    /// Counts a request that is about to be asked. Asked again with its number it counts once.
    ///
    /// # Errors
    /// `QuotaExceeded`: the client has to close handles, or to wait for fewer locks.
    pub(super) fn take(&mut self, session: SessionId, number: RequestNumber, op: &Op) -> Result<(), Error> {
        let (table, limit, what) = match op {
            Op::Open(_) => (&mut self.handles, HANDLES_PER_CLIENT, "handles open"),
            Op::Acquire(..) => (&mut self.waits, LOCK_WAITS_PER_CLIENT, "waits for locks"),
            _ => return Ok(()),
        };
        let taken = table.entry(session).or_default();
        if taken.len() >= limit && !taken.contains(&number) {
            let detail = format!("this session has {limit} {what}, which is the limit");
            return Err(ErrorCode::QuotaExceeded.because(detail));
        }
        taken.insert(number);
        Ok(())
    }

    /// A request was answered: an `Open` that failed left no handle, an `Acquire` waits no longer.
    pub(super) fn answered(&mut self, session: SessionId, number: RequestNumber, succeeded: bool) {
        remove(&mut self.waits, session, number);
        if !succeeded {
            remove(&mut self.handles, session, number);
        }
    }

    /// The handle that this `Open` made is closed.
    pub(super) fn closed(&mut self, session: SessionId, opened_by: RequestNumber) {
        remove(&mut self.handles, session, opened_by);
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.handles.remove(&session);
        self.waits.remove(&session);
    }
}

fn remove(
    table: &mut BTreeMap<SessionId, BTreeSet<RequestNumber>>,
    session: SessionId,
    number: RequestNumber,
) {
    if let Some(taken) = table.get_mut(&session)
        && taken.remove(&number)
        && taken.is_empty()
    {
        table.remove(&session);
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::handle::HandleToken;
    use hasp_proto::name::Name;
    use hasp_proto::node::LockMode;
    use hasp_proto::request::{Open, Use};

    use super::*;

    const S: SessionId = SessionId([1; 16]);

    fn check(op: &Op, limit: usize, free: impl Fn(&mut Quotas, RequestNumber)) {
        let mut quotas = Quotas::default();
        let take = |quotas: &mut Quotas, number: usize| {
            quotas.take(S, RequestNumber(number as u64), op).map_err(|error| error.code)
        };
        for number in 1..=limit {
            assert_eq!(take(&mut quotas, number), Ok(()), "{number}");
        }

        assert_eq!(take(&mut quotas, limit + 1), Err(ErrorCode::QuotaExceeded));
        assert_eq!(take(&mut quotas, limit), Ok(()), "asked again");
        free(&mut quotas, RequestNumber(7));
        free(&mut quotas, RequestNumber(7));
        assert_eq!(take(&mut quotas, limit + 1), Ok(()));
        assert_eq!(take(&mut quotas, limit + 2), Err(ErrorCode::QuotaExceeded), "freed once");

        quotas.forget(S);
        assert!(quotas.handles.is_empty() && quotas.waits.is_empty());
    }

    #[test]
    fn handles_are_bounded_and_count_until_they_are_closed_or_were_not_made() {
        let open = Op::Open(Open::existing(Name::parse("/ls/dev/f").expect("good"), Use::Read));

        check(&open, HANDLES_PER_CLIENT, |quotas, number| quotas.closed(S, number));
        check(&open, HANDLES_PER_CLIENT, |quotas, number| {
            quotas.answered(S, RequestNumber(number.0 + 1), true);
            quotas.answered(S, number, false);
        });
    }

    #[test]
    fn waits_for_locks_are_bounded_and_count_until_they_are_answered() {
        let acquire = Op::Acquire(HandleToken::new(bytes::Bytes::new()), LockMode::Shared);

        check(&acquire, LOCK_WAITS_PER_CLIENT, |quotas, number| quotas.answered(S, number, true));
    }
}
