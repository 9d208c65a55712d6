//! Any order of answers, news, losses and cancellations: every request is answered once, and the home cell does not hear
//! that an ACL is forgotten while a request that may still be done carries it.

use hasp_proto::crossing::{Root, SealTicket, Vouch};
use hasp_proto::node::LockMode;

use super::*;

const ACLS: [&str; 2] = ["dev", "ops"];

/// A request on its way to be done: until when its cell believes what it carries, and of which ACLs.
type Carried = (Time, Vec<String>);

struct Run {
    played: Played,
    random: u64,
    now: Time,
    tickets: Vec<Ticket>,
    open: BTreeMap<String, Vec<Request>>,
    /// By cell and number.
    carried: BTreeMap<(String, RequestNumber), Carried>,
    /// News that the home cell waits to be acknowledged: by sequence, what must be over before.
    owed: BTreeMap<Sequence, Vec<(String, RequestNumber)>>,
    pending: Vec<NewsId>,
    /// When each cell named a moment of its clock first.
    anchors: BTreeMap<(String, Time), Time>,
}

impl Run {
    fn draw(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn name(&mut self) -> Name {
        let names = [D, D, D, "/ls/dev/p", "/ls/other/x"];
        name(names[usize::try_from(self.draw(5)).expect("few")])
    }

    fn op(&mut self) -> Op {
        let file = handle("c", "/ls/dev/p/d/f", NodeKind::File);
        match self.draw(5) {
            0 => Op::Delete(directory()),
            1 => Op::SetAcl { handle: directory(), acls: AclNames::default(), if_generation: None },
            2 => Op::Cross(CrossOp::ListRoot { name: name(D), instance: Instance(7) }),
            3 => Op::Acquire(file, LockMode::Shared),
            _ => open(),
        }
    }

    fn reply(&mut self, request: &Request) -> Result<Reply, Error> {
        let ticket = SealTicket(self.draw(3) * (u64::MAX / 2));
        let (name, instance) = (self.name(), Instance(7));
        let code = match self.draw(6) {
            0 => ErrorCode::NotFound,
            1 => ErrorCode::StaleHandle,
            2 => ErrorCode::NotEmpty,
            3 => ErrorCode::WrongCell { map_version: 2 },
            4 => ErrorCode::Cancelled,
            _ => ErrorCode::PermissionDenied,
        };
        let acl_name = ACLS[usize::try_from(self.draw(2)).expect("few")];
        if self.draw(4) == 0 {
            return error(code);
        }
        if request.on_behalf.is_some() && self.draw(4) > 0 {
            return needs(match self.draw(6) {
                0 => Need::Root(name),
                1 => Need::Unseal { name, instance, ticket },
                2 => Need::Seal { name, instance },
                _ => Need::Acl(acl_name.into()),
            });
        }
        match &request.op {
            Op::Delete(_) => Ok(Reply::Deleted),
            Op::SetAcl { .. } => Ok(Reply::AclSet { acl_generation: Generation(3) }),
            Op::Acquire(..) => Ok(Reply::Acquired { lock_generation: Generation(3) }),
            Op::Cross(CrossOp::ReadAcl(_)) => acl(if self.draw(2) == 0 { "alice" } else { "bob" }),
            Op::Cross(CrossOp::DescribeRoot(name)) => {
                let (acls, acl_generation) = (AclNames::default(), Generation(1));
                Ok(Reply::Root(Root {
                    name: name.clone(),
                    instance,
                    acls,
                    acl_generation,
                    as_of: position("p", 4),
                }))
            }
            Op::Cross(CrossOp::Seal { .. }) => Ok(Reply::Sealed(ticket)),
            Op::Cross(CrossOp::Vouch(_)) => {
                Ok(Reply::Anchored(anchor(60_000 + self.now.as_micros() / 1_000)))
            }
            _ => Ok(Reply::Noted),
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(self.draw(150));
        let now = self.now;
        self.played.wait_until(now);
        self.look();
        match self.draw(24) {
            0..6 => {
                let op = self.op();
                self.tickets.push(self.played.submit(now, op));
            }
            6..16 => self.answer_any(),
            16 => {
                let index = usize::try_from(self.draw(self.tickets.len().max(1) as u64)).expect("few");
                if let Some(ticket) = self.tickets.get(index) {
                    self.played.cancel(now, *ticket);
                }
            }
            17 | 18 => self.tell(),
            19 | 20 if !self.pending.is_empty() => {
                let news = self.pending.remove(0);
                self.played.acknowledge(now, news);
            }
            21 if self.draw(6) == 0 => self.lose(),
            _ => {
                for cell in ["c", "h", "p"] {
                    self.played.extend(now, cell);
                }
            }
        }
        self.look();
    }

    fn answer_any(&mut self) {
        let cells: Vec<_> =
            self.open.iter().filter(|(_, all)| !all.is_empty()).map(|(cell, _)| cell.clone()).collect();
        if cells.is_empty() {
            return;
        }
        let cell = &cells[usize::try_from(self.draw(cells.len() as u64)).expect("few")];
        let count = self.open[cell].len() as u64;
        let index = usize::try_from(self.draw(count)).expect("few");
        let request = self.open.get_mut(cell).expect("listed").remove(index);
        let reply = self.reply(&request);
        if let Ok(Reply::Needs(_, anchor) | Reply::Anchored(anchor)) = &reply {
            self.anchors.entry((cell.clone(), anchor.at)).or_insert(self.now);
        }
        let caches = if self.draw(3) > 0 { data() } else { ItemKinds::NONE };
        self.carried.remove(&(cell.clone(), request.number));
        if self.draw(8) == 0 {
            let answer = Answer::plain(request.number, reply);
            self.played.receive(self.now, cell, Down::Answer(answer));
        } else {
            self.played.answer_keeping(self.now, cell, &request, caches, reply);
        }
    }

    fn tell(&mut self) {
        let acl = ACLS[usize::try_from(self.draw(2)).expect("few")];
        let is_fail_over = self.draw(4) == 0;
        let must_be_over = |(_, acls): &Carried| is_fail_over || acls.iter().any(|it| it == acl);
        let owed =
            self.carried.iter().filter(|(_, it)| must_be_over(it)).map(|(key, _)| key.clone()).collect();
        let news = if is_fail_over {
            self.played.tell(self.now, "h", News::FailOver { cell: CellName::new("h"), epoch: Epoch(2) })
        } else {
            self.played.tell_changed(self.now, &[&format!("/ls/dev/acl/{acl}")])
        };
        self.owed.insert(Sequence(self.played.sequence), owed);
        self.pending.push(news);
    }

    fn lose(&mut self) {
        let cell = ["c", "h", "p"][usize::try_from(self.draw(3)).expect("few")];
        self.open.remove(cell);
        self.carried.retain(|(at, _), _| at != cell);
        // The next session counts its requests from the beginning.
        self.owed.values_mut().for_each(|owed| owed.retain(|(at, _)| at != cell));
        if cell == "h" {
            (self.owed, self.pending) = Default::default();
        }
        self.played.expire(self.now, cell);
    }

    /// Takes in what was sent, and looks whether it was right.
    fn look(&mut self) {
        for (cell, requests) in std::mem::take(&mut self.played.requests) {
            for request in requests {
                let told = request.on_behalf.as_ref().map(|_| evidence(&request)).unwrap_or_default();
                assert_eq!(told.vouch.is_some(), !told.memberships.is_empty());
                let until = |vouch: &Vouch| self.anchors[&(cell.clone(), vouch.anchor.at)] + vouch.lasts;
                if let Some(vouch) = &told.vouch {
                    let acls = told.memberships.iter().map(|it| it.acl.clone()).collect();
                    self.carried.insert((cell.clone(), request.number), (until(vouch), acls));
                }
                if let Op::Cross(CrossOp::Vouch(Some(vouch))) = &request.op {
                    let longer = until(vouch);
                    let at_cell = self.carried.iter_mut().filter(|((at, _), _)| *at == cell);
                    at_cell.for_each(|(_, (until, _))| *until = longer.max(*until));
                }
                self.open.entry(cell.clone()).or_default().push(request);
            }
        }
        for (_, sequence) in std::mem::take(&mut self.played.acknowledged) {
            for key in self.owed.remove(&sequence).unwrap_or_default() {
                let still = self.carried.get(&key);
                let is_over = |(until, _): &Carried| *until <= self.now;
                assert!(still.is_none_or(is_over), "{key:?} may be done still: {still:?} at {:?}", self.now);
            }
        }
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut run = Run {
        played: Played::new(),
        random: seed,
        now: t(0),
        tickets: Vec::new(),
        open: BTreeMap::new(),
        carried: BTreeMap::new(),
        owed: BTreeMap::new(),
        pending: Vec::new(),
        anchors: BTreeMap::new(),
    };
    for _ in 0..400 {
        run.step();
    }
    let before = run.played.answers.len();
    run.played.core.end(run.now);
    run.played.play(run.now);
    for link in run.played.links.values().cloned().collect::<Vec<_>>() {
        run.played.core.disconnected(run.now, &link);
        run.played.play(run.now);
    }
    assert_eq!(run.played.core.waiting(), 0);
    let answered: Vec<_> = run.played.answers.keys().copied().collect();
    assert_eq!(answered, run.tickets, "every request is answered, and nothing else");
    (before, run.tickets.len())
}

#[test]
fn every_request_is_answered_once_whatever_happens() {
    let (mut before, mut all) = (0, 0);
    for seed in 0..150 {
        let (answered, asked) = run(seed);
        before += answered;
        all += asked;
    }
    assert!(before * 2 > all, "{before} of {all} were answered before the end");
}
