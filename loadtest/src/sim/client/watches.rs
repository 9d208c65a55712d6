//! Handles that are told of events: what they are to be told, and what they were.

use hasp_cell::state::HolderId;
use hasp_client::HandleEvent;
use hasp_client::machine::{CallId, HandleNumber, OpenHandle};
use hasp_proto::request::{Answer, Reply};

use super::super::history::{Heard, Watch, What};
use super::super::world::{NodeId, World};

impl World {
    /// A handle was opened; it may be one that is told of events.
    pub(super) fn note_watch(&mut self, index: usize, call: CallId, answer: &Answer, opened: &OpenHandle) {
        let client = &mut self.clients[index];
        let Some(doing) = client.doing.as_ref().filter(|doing| doing.call == call) else { return };
        let (Ok(Reply::Opened { handle, stat, .. }), Some(position)) = (&answer.result, &answer.position)
        else {
            return;
        };
        if let Some(body) = handle.claimed_body() {
            let holder = HolderId { session: body.session, opened_by: body.opened_by };
            self.history.lock_delays.entry(holder).or_insert(doing.lock_delay);
        }
        let told = doing.opening.told;
        if !told.is_empty() {
            client.watches.insert(opened.number, self.history.watches.len());
            self.history.watches.push(Watch {
                client: index,
                life: self.lives[&NodeId::Client(index)].number,
                name: opened.name.clone(),
                instance: stat.instance,
                told,
                opened: self.now,
                position: position.clone(),
                is_exact: self.history.asked[doing.asked].what == What::Open && !stat.ephemeral,
                ended: None,
            });
        }
    }

    /// A handle is told of an event.
    pub(super) fn hear(&mut self, index: usize, number: HandleNumber, event: HandleEvent) {
        let Some(watch) = self.clients[index].watches.get(&number).copied() else { return };
        if self.story.is_told() {
            let name = &self.history.watches[watch].name;
            self.story.remark(self.now, NodeId::Client(index), format_args!("hears of {name}: {event:?}"));
        }
        let is_last = matches!(event, HandleEvent::Invalid(_));
        self.counts.events += 1;
        self.history.heard.push(Heard { watch, at: self.now, event });
        if is_last {
            self.watch_ends(index, number);
        }
    }

    /// Nothing more is to be told of a handle.
    pub(super) fn watch_ends(&mut self, index: usize, number: HandleNumber) {
        if let Some(watch) = self.clients[index].watches.remove(&number) {
            self.history.watches[watch].ended = Some(self.now);
        }
    }
}
