//! Taking locks and giving them back: at the cell, or from what is kept.

use hasp_proto::error::ErrorCode;
use hasp_proto::id::RequestNumber;
use hasp_proto::node::LockMode;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::time::Time;

use super::interface::{Brought, Call, CallId, HandleNumber};
use super::kept::{Acquiring, Releasing};
use super::{ApplicationCore, Caller, refused};

impl ApplicationCore {
    /// Takes the lock from what is kept, or lets the call wait for it; whether there is no more to do.
    pub(super) fn acquire(&mut self, now: Time, id: CallId, call: &Call) -> bool {
        let Some((handle, mode)) = call.acquires() else { return false };
        let is_safe = self.is_handle_safe(now, handle);
        match self.kept.acquire(handle, mode, is_safe, (id, call)) {
            Acquiring::Ask => self.locks.hold_back(handle, mode, (id, call)),
            Acquiring::Wait => true,
            Acquiring::GiveUp => {
                self.give_up_lock(now, handle);
                true
            }
            Acquiring::Granted(lock_generation, position) => {
                self.locks.asked(handle);
                self.locks.answered(handle, true);
                let reply = Ok(Reply::Acquired { lock_generation });
                self.answer(id, Answer { position, ..Answer::plain(RequestNumber(0), reply) });
                true
            }
        }
    }

    /// Keeps the lock, if that is wished for; whether there is no more to do.
    pub(super) fn release(&mut self, now: Time, id: CallId, handle: HandleNumber) -> bool {
        let is_safe = self.is_handle_safe(now, handle);
        match self.kept.release(handle, is_safe) {
            Releasing::Ask => false,
            Releasing::Keep => {
                self.locks.given_up(handle);
                self.answer(id, Answer::plain(RequestNumber(0), Ok(Reply::Released)));
                true
            }
            Releasing::NotHeld => {
                self.answer(id, refused(ErrorCode::LockNotHeld.because("it was released before")));
                true
            }
        }
    }

    pub(super) fn acquired(
        &mut self,
        now: Time,
        caller: Caller,
        handle: HandleNumber,
        mode: LockMode,
        answer: Answer,
    ) {
        self.note_end(now, Some(handle), &answer);
        let is_granted = answer.result.is_ok();
        match caller {
            Caller::Call(id) => {
                self.locks.answered(handle, is_granted);
                self.answer(id, answer);
            }
            Caller::Nobody => self.locks.answered_to_nobody(handle, mode, is_granted),
        }
        if self.locks.is_unwanted(handle) {
            self.give_up_lock(now, handle);
        } else {
            self.ask_held_back(now, handle);
        }
    }

    pub(super) fn released(&mut self, now: Time, caller: Caller, handle: HandleNumber, answer: Answer) {
        self.locks.released(handle);
        self.note_end(now, Some(handle), &answer);
        self.answer_caller(caller, answer);
        for (id, call) in self.kept.given(handle) {
            self.ask(now, id, call);
        }
        self.ask_held_back(now, handle);
    }

    /// Asks the calls that waited for the answers to others, which nobody waits for any more.
    fn ask_held_back(&mut self, now: Time, handle: HandleNumber) {
        for (id, call) in self.locks.take_held_back(handle) {
            self.ask(now, id, call);
        }
    }

    /// Nobody heard what was handed out: it is given up.
    pub(super) fn unheard(&mut self, now: Time, brought: Brought) {
        if let Some(handle) = brought.lock_of {
            self.locks.unheard(handle);
            self.release_unwanted(now, handle);
        }
        if let Some(handle) = brought.handle {
            self.close(now, handle);
        }
    }

    /// Somebody else wants the handle's lock, or may: it is given up now, or with its release.
    pub(super) fn lock_wanted(&mut self, now: Time, handle: HandleNumber) {
        if self.kept.wanted(handle) {
            self.give_up_lock(now, handle);
        }
    }

    pub(super) fn release_unwanted(&mut self, now: Time, handle: HandleNumber) {
        if self.locks.is_unwanted(handle) {
            self.give_up_lock(now, handle);
        }
    }

    fn give_up_lock(&mut self, now: Time, handle: HandleNumber) {
        let Some(token) = self.handles.get(handle).map(|handle| handle.token.clone()) else { return };
        self.send(now, Caller::Nobody, Call { on: Some(handle), ..Op::Release(token).into() });
    }

    fn is_handle_safe(&self, now: Time, handle: HandleNumber) -> bool {
        self.handles.get(handle).is_some_and(|handle| self.is_safe(now, &handle.body.cell))
    }
}
