//! The open handles of clients that speak to the master themselves: how many each has, and which were
//! closed (paper §2.9, step 8). Those of clients behind a proxy are the proxy's to count.
//!
//! ```text
//! made here:     open -- Close --> good for nothing
//! made before:   good -- Close --> good for nothing in this epoch
//! ```
//!
//! A handle that an earlier master or another host made is honoured as it is shown, since its token
//! says all there is to know; one that was then closed is remembered, so that a delayed or faulty
//! message does not bring it back. Both sets are bounded by the handles a client may have.

use std::collections::{BTreeMap, BTreeSet};

use hasp_proto::id::{RequestNumber, SessionId};
use hasp_proto::limits::HANDLES_PER_CLIENT;

#[derive(Clone, Debug, Default)]
pub(super) struct Handles {
    clients: BTreeMap<SessionId, Client>,
}

#[derive(Clone, Debug)]
struct Client {
    /// Its first request that can only have been asked here: handles with a smaller number may be from elsewhere.
    first: RequestNumber,
    open: BTreeSet<RequestNumber>,
    closed_before: BTreeSet<RequestNumber>,
}

impl Handles {
    /// A client asks something. Handles of requests before `first` may have been made elsewhere.
    pub(super) fn hear(&mut self, client: SessionId, first: RequestNumber) {
        let known = self.clients.entry(client).or_insert_with(|| Client {
            first,
            open: BTreeSet::new(),
            closed_before: BTreeSet::new(),
        });
        known.first = known.first.max(first);
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self, client: SessionId) -> bool {
        self.clients.get(&client).is_none_or(|client| client.open.len() < HANDLES_PER_CLIENT)
    }

    pub(super) fn opened(&mut self, client: SessionId, opened_by: RequestNumber) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.open.insert(opened_by);
        }
    }

    pub(super) fn closed(&mut self, client: SessionId, opened_by: RequestNumber) {
        let Some(client) = self.clients.get_mut(&client) else { return };
        client.open.remove(&opened_by);
        if opened_by < client.first {
            if client.closed_before.len() >= HANDLES_PER_CLIENT {
                client.closed_before.pop_first();
            }
            client.closed_before.insert(opened_by);
        }
    }

    /// Whether a handle with a good token was not closed.
    pub(super) fn is_open(&self, client: SessionId, opened_by: RequestNumber) -> bool {
        let Some(client) = self.clients.get(&client) else { return true };
        if opened_by < client.first {
            !client.closed_before.contains(&opened_by)
        } else {
            client.open.contains(&opened_by)
        }
    }

    /// The client's session is over.
    pub(super) fn forget(&mut self, client: SessionId) {
        self.clients.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: SessionId = SessionId([1; 16]);

    fn number(number: u64) -> RequestNumber {
        RequestNumber(number)
    }

    #[test]
    fn a_handle_made_here_is_good_until_it_is_closed() {
        let mut handles = Handles::default();
        handles.hear(CLIENT, number(1));
        handles.opened(CLIENT, number(1));
        assert!(handles.is_open(CLIENT, number(1)));
        assert!(!handles.is_open(CLIENT, number(2)), "never made");

        handles.closed(CLIENT, number(1));

        assert!(!handles.is_open(CLIENT, number(1)));
    }

    #[test]
    fn a_handle_of_an_earlier_master_is_honoured_until_it_is_closed() {
        let mut handles = Handles::default();
        handles.hear(CLIENT, number(50));
        assert!(handles.is_open(CLIENT, number(7)));

        handles.closed(CLIENT, number(7));

        assert!(!handles.is_open(CLIENT, number(7)), "not rebuilt in the same epoch");
        assert!(handles.is_open(CLIENT, number(8)));
    }

    #[test]
    fn a_client_that_was_elsewhere_may_have_made_handles_there() {
        let mut handles = Handles::default();
        handles.hear(CLIENT, number(1));
        handles.opened(CLIENT, number(3));
        assert!(!handles.is_open(CLIENT, number(4)));

        handles.hear(CLIENT, number(9));

        assert!(handles.is_open(CLIENT, number(3)) && handles.is_open(CLIENT, number(8)));
        assert!(!handles.is_open(CLIENT, number(9)));
    }

    #[test]
    fn there_is_an_end_to_what_one_client_may_open_and_close() {
        let mut handles = Handles::default();
        let many = u64::try_from(HANDLES_PER_CLIENT).expect("fits");
        handles.hear(CLIENT, number(many * 2));
        for opened_by in 0..many {
            assert!(handles.has_room(CLIENT));
            handles.opened(CLIENT, number(many * 2 + opened_by));
        }
        assert!(!handles.has_room(CLIENT));

        for opened_by in 0..=many {
            handles.closed(CLIENT, number(opened_by));
        }

        assert_eq!(handles.clients[&CLIENT].closed_before.len(), HANDLES_PER_CLIENT);
    }
}
