//! When a session begins, and when another follows it.

use hasp_proto::client::{ClientConfig, Status};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::SessionKey;
use hasp_proto::time::Time;
use sha2::{Digest, Sha256};

use super::{Asked, Begin, Hosts, REFUSED_PAUSE, UpstreamCore, over, route};

impl UpstreamCore {
    /// Begins the session if its time is its first use. A handle of the holder's own is good in the
    /// session that opened it and in no later one.
    pub(super) fn check_session(&mut self, now: Time, index: usize, asked: &Asked) -> Result<(), Error> {
        if self.is_ending {
            return Err(over());
        }
        let opened_in = match (&asked.ask.on_behalf, asked.ask.op.handle()) {
            (None, Some(handle)) => Some(route::claimed(handle)?.session),
            _ => None,
        };
        let current = self.slots[index].client.as_ref().map(|client| client.session());
        let is_resting = self.slots[index].is_resting;
        if opened_in.is_some_and(|session| current != Some(session) || is_resting) {
            return Err(ErrorCode::SessionExpired.because("the handle's session is over"));
        }
        let is_due = match self.config.begin {
            Begin::AtFirstUse => true,
            Begin::AtOnce => {
                let slot = &self.slots[index];
                slot.begins_at_use || slot.begin_at.is_some_and(|at| at <= now)
            }
        };
        if current.is_none() && is_due {
            self.begin(now, index);
        }
        if self.slots[index].client.is_none() {
            return Err(ErrorCode::Unavailable.because("there is no session with the cell at the moment"));
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, now: Time, index: usize) {
        self.slots[index].begin_at = None;
        let key = self.next_key();
        let targets = match &self.config.hosts {
            Hosts::One(hosts) => hosts.candidates(&key.id().0),
            Hosts::Cells(_) => self.slots[index].targets.clone(),
        };
        if targets.is_empty() {
            return;
        }
        let config = ClientConfig {
            key,
            role: self.config.role,
            principal: self.config.principal.clone(),
            advertise: self.config.advertise.clone(),
            targets,
            grace: self.config.grace,
            jitter: self.config.jitter.wrapping_add(self.keys_used),
        };
        self.slots[index].begin(now, config);
        self.collect(now, index);
    }

    /// The first half of the SHA-256 of the seed and a counter.
    fn next_key(&mut self) -> SessionKey {
        let digest = Sha256::new()
            .chain_update(self.config.seed)
            .chain_update(self.keys_used.to_be_bytes())
            .finalize();
        self.keys_used += 1;
        SessionKey::new(digest[..16].try_into().expect("16 of 32 bytes"))
    }

    /// Lets another session follow one that is over, unless its end was final or wished for.
    pub(super) fn renew(&mut self, now: Time, index: usize) {
        let slot = &mut self.slots[index];
        let is_over = slot.client.as_ref().is_some_and(|client| client.status() == Status::Over);
        if is_over && slot.is_resting {
            return self.rested(now, index);
        }
        let is_final = matches!(self.config.hosts, Hosts::One(_)) && !self.config.role.is_tier();
        if !is_over || self.is_ending || is_final {
            return;
        }
        slot.forget();
        match self.config.begin {
            Begin::AtFirstUse => {}
            Begin::AtOnce if slot.was_welcomed => self.begin(now, index),
            Begin::AtOnce => slot.begin_at = Some(now + REFUSED_PAUSE),
        }
    }
}
