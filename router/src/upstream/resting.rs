//! Sessions that nobody needs for the moment: ended by their holder, and begun again, with a new key,
//! by the next request. Who asked meanwhile does not notice.
//!
//! ```text
//! held -- rest --> resting (the host is told; requests wait) -- over --> none -- request --> held
//! ```

use hasp_proto::client::Status;
use hasp_proto::id::CellName;
use hasp_proto::time::Time;

use super::slot::Slot;
use super::{Asked, Place, UpstreamCore, over};

impl UpstreamCore {
    /// Since when nothing has been asked of the session at that cell (`None`: of the only one), and no
    /// answer has come; `None` while something waits, or without a session.
    pub fn idle_since(&self, cell: Option<&CellName>) -> Option<Time> {
        let slot = &self.slots[self.slot_of(cell)?];
        let client = slot.client.as_ref()?;
        let is_idle = slot.asked.is_empty()
            && slot.crossing == 0
            && !slot.is_resting
            && client.status() != Status::Over;
        (is_idle && !self.is_ending).then_some(slot.used_at)
    }

    /// Ends an idle session; the next request begins another. Nothing is told of the end.
    pub fn rest(&mut self, now: Time, cell: Option<&CellName>) {
        let Some(index) = self.slot_of(cell).filter(|_| self.idle_since(cell).is_some()) else { return };
        let slot = &mut self.slots[index];
        slot.is_resting = true;
        slot.begins_at_use = true;
        self.with_client(now, index, |client| client.end(now));
        self.cross(now);
    }

    /// Takes the request if it has to wait until the session has come to its end; else gives it back. Only applications' sessions
    /// rest, so it has nothing from another cell with it that could be outdated by then.
    pub(super) fn hold_back(&mut self, index: usize, asked: Asked) -> Option<Asked> {
        let slot = &mut self.slots[index];
        if !slot.is_resting {
            return Some(asked);
        }
        self.places.insert(asked.ticket, Place::HeldBack(index));
        slot.held_back.push(asked);
        None
    }

    /// The session that was resting is over: what waited begins the next.
    pub(super) fn rested(&mut self, now: Time, index: usize) {
        let slot = &mut self.slots[index];
        slot.is_resting = false;
        slot.forget();
        for asked in std::mem::take(&mut slot.held_back) {
            self.ask(now, index, asked);
        }
    }

    /// No session begins any more.
    pub(super) fn fail_held_back(&mut self) {
        let take = |slot: &mut Slot| {
            slot.is_resting = false;
            std::mem::take(&mut slot.held_back)
        };
        let held_back: Vec<Asked> = self.slots.iter_mut().flat_map(take).collect();
        for asked in held_back {
            self.fail(asked.ticket, over());
        }
    }
}
