//! A cell that keeps sessions, remembers who speaks for whom, and answers without doing anything.

use std::collections::BTreeMap;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleKey};
use hasp_proto::id::{CellName, Claim, Epoch, Generation, Instance, SessionId};
use hasp_proto::lease::{Ceiling, LeaseTerms};
use hasp_proto::node::{AclNames, NodeKind, Stat};
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::server::ConnectionId;
use hasp_proto::server::{Output, ServerCore};
use hasp_proto::stream::Down;
use hasp_proto::time::Time;

pub(crate) struct Cell {
    pub(crate) core: ServerCore,
    /// Every request, with the session that sent it.
    pub(crate) seen: Vec<(SessionId, Request)>,
    /// Requests are kept in `held` instead of answered.
    pub(crate) holds: bool,
    pub(crate) held: Vec<(SessionId, Request)>,
    /// Answers operations of this name with this error.
    pub(crate) refuses: Option<(&'static str, ErrorCode)>,
    name: CellName,
    key: HandleKey,
    speakers: BTreeMap<SessionId, (SessionId, Claim)>,
}

impl Cell {
    pub(crate) fn new(name: &str) -> Self {
        let mut core = ServerCore::new(LeaseTerms::default());
        core.set_ceiling(Time::ZERO, Ceiling::Master);
        core.speak_as_master(CellName::new(name), Epoch(1));
        Self {
            core,
            seen: Vec::new(),
            holds: false,
            held: Vec::new(),
            refuses: None,
            name: CellName::new(name),
            key: HandleKey::new(bytes::Bytes::from_static(&[1; 32])),
            speakers: BTreeMap::new(),
        }
    }

    /// The operations that were asked, by name, oldest first.
    pub(crate) fn ops(&self) -> Vec<&'static str> {
        self.seen.iter().map(|(_, request)| request.op.name()).collect()
    }

    pub(crate) fn answer_held(&mut self) {
        self.holds = false;
        for (session, request) in std::mem::take(&mut self.held) {
            self.answer(session, &request);
        }
    }

    /// What is to be sent next, or which connection to be closed.
    pub(crate) fn next_sent(&mut self, now: Time) -> Option<Result<(ConnectionId, Down), ConnectionId>> {
        loop {
            match self.core.poll_output()? {
                Output::Send(connection, down) => return Some(Ok((connection, down))),
                Output::Close(connection) => return Some(Err(connection)),
                Output::Admit(connection, _, hello) if hello.resume => {
                    self.core.refuse(connection, ErrorCode::SessionExpired.because("unknown here"));
                }
                Output::Admit(connection, ..) => self.core.admit(now, connection),
                Output::Request(session, request) => {
                    self.seen.push((session, request.clone()));
                    if self.holds {
                        self.held.push((session, request));
                    } else {
                        self.answer(session, &request);
                    }
                }
                Output::Cancel(session, number) => {
                    self.held.retain(|(_, request)| request.number != number);
                    let result = Err(ErrorCode::Cancelled.because("by the client"));
                    self.core.answer(session, Answer { number, position: None, result });
                }
                Output::Expired(session) | Output::Ended(session) => self.core.forget(session),
                Output::Settled(..) | Output::Acknowledged(..) => {}
            }
        }
    }

    fn answer(&mut self, via: SessionId, request: &Request) {
        let result = self.speak(via, request).and_then(|()| match &self.refuses {
            Some((op, code)) if *op == request.op.name() => Err(code.clone().because("told to")),
            _ => Ok(self.reply(via, request)),
        });
        self.core.answer(via, Answer { number: request.number, position: None, result });
    }

    /// As the real cell: the newest claim wins; the same one only through the same session.
    fn speak(&mut self, via: SessionId, request: &Request) -> Result<(), Error> {
        let Some(client) = &request.on_behalf else { return Ok(()) };
        let (speaker, claim) = *self.speakers.get(&client.session).unwrap_or(&(via, Claim(0)));
        let is_orphan = self.core.holder(speaker).is_none();
        let is_current = client.claim > claim || client.claim == claim && (speaker == via || is_orphan);
        if !is_current {
            return Err(ErrorCode::SessionMoved.because("speaks elsewhere"));
        }
        self.speakers.insert(client.session, (via, client.claim));
        Ok(())
    }

    fn reply(&self, via: SessionId, request: &Request) -> Reply {
        let (session, opened_by) = match &request.on_behalf {
            Some(client) => (client.session, client.number),
            None => (via, request.number),
        };
        match &request.op {
            Op::Open(open) => {
                let body = HandleBody {
                    cell: self.name.clone(),
                    name: open.name.clone(),
                    instance: Instance(1),
                    kind: NodeKind::File,
                    r#use: open.r#use,
                    session,
                    opened_by,
                    epoch: Epoch(1),
                    lock_delay: open.lock_delay,
                };
                Reply::Opened { handle: self.key.seal(&body), created: false, stat: stat() }
            }
            Op::Close(_) => Reply::Closed,
            Op::GetContentsAndStat(_) => Reply::Contents { contents: bytes::Bytes::new(), stat: stat() },
            Op::GetStat(_) => Reply::Stat(stat()),
            Op::ReadDir(_) => Reply::Children(Vec::new()),
            Op::SetContents { .. } => {
                Reply::Written { content_generation: Generation(2), previous_generation: Generation(1) }
            }
            Op::Delete(_) => Reply::Deleted,
            Op::Acquire(..) | Op::TryAcquire(..) => Reply::Acquired { lock_generation: Generation(1) },
            Op::Release(_) => Reply::Released,
            Op::EndClient(_) | Op::Settle(_) | Op::Claim => Reply::Noted,
        }
    }
}

fn stat() -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 0,
        ephemeral: false,
        acls: AclNames::default(),
    }
}
