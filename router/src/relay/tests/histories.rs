//! Whatever happens in whatever order: nobody reads what is older than a write that was done, through any
//! proxy and from any cache (P-LIN), and nobody is shown less than it has seen (P-MONO).

use std::collections::BTreeMap;

use bytes::Bytes;
use hasp_proto::handle::HandleToken;
use hasp_proto::request::{Op, Reply};
use proptest::prelude::*;

use super::opened;
use super::world::World;
use crate::upstream::Ticket;

const FILES: [&str; 2] = ["/ls/dev/x", "/ls/dev/y"];

/// Something that began and ended, by a count of steps, and which generation it wrote or was shown.
#[derive(Clone, Copy, Debug)]
struct Done {
    file: usize,
    began: u64,
    ended: u64,
    generation: u64,
}

/// What may fall silent, and between whom nothing may pass.
#[derive(Clone, Copy)]
struct Faults {
    hosts: &'static [&'static str],
    cuts: &'static [(&'static str, &'static str)],
}

const ONE_LAYER: Faults = Faults { hosts: &["p", "q", "a"], cuts: &[("p", "a"), ("q", "a")] };
const TWO_LAYERS: Faults = Faults {
    hosts: &["p", "q", "u", "v", "a"],
    cuts: &[("p", "u"), ("q", "u"), ("p", "v"), ("q", "v"), ("u", "a"), ("v", "a")],
};

struct Clients {
    handles: Vec<[HandleToken; 2]>,
    under_way: BTreeMap<(usize, Ticket), (usize, u64)>,
    frozen: Vec<bool>,
    done: Vec<Done>,
    steps: u64,
}

impl Clients {
    fn new(world: &mut World) -> Self {
        let mut handles = Vec::new();
        for (relays, caches) in
            [(["p", "q"], true), (["q", "p"], true), (["p", "q"], false), (["q", "p"], true)]
        {
            let client = world.add_client(&relays);
            world.clients[client].caches = caches;
            handles.push(FILES.map(|file| opened(world, client, file)));
        }
        let frozen = vec![false; handles.len()];
        let (under_way, done) = Default::default();
        Self { handles, under_way, frozen, done, steps: 0 }
    }

    fn read(&mut self, world: &mut World, client: usize, file: usize) {
        let now = world.now;
        if let Some((_, stat)) = world.clients[client].cached(now, FILES[file]) {
            let (began, ended) = (self.steps, self.steps + 1);
            self.done.push(Done { file, began, ended, generation: stat.content_generation.0 });
        } else {
            self.ask(world, client, file, Op::GetContentsAndStat(self.handles[client][file].clone()));
        }
    }

    fn write(&mut self, world: &mut World, client: usize, file: usize) {
        let (handle, contents) = (self.handles[client][file].clone(), Bytes::from_static(b"x"));
        self.ask(world, client, file, Op::SetContents { handle, contents, if_generation: None });
    }

    fn ask(&mut self, world: &mut World, client: usize, file: usize, op: Op) {
        let ticket = world.submit(client, op);
        self.under_way.insert((client, ticket), (file, self.steps));
    }

    /// Takes in what has been answered.
    fn collect(&mut self, world: &mut World) {
        self.steps += 1;
        for client in 0..self.handles.len() {
            for (ticket, answer) in std::mem::take(&mut world.clients[client].answers) {
                let Some((file, began)) = self.under_way.remove(&(client, ticket)) else { continue };
                let generation = match answer.result {
                    Ok(Reply::Contents { stat, .. }) => stat.content_generation.0,
                    Ok(Reply::Written { content_generation, .. }) => content_generation.0,
                    _ => continue,
                };
                self.done.push(Done { file, began, ended: self.steps, generation });
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for before in &self.done {
            for after in &self.done {
                let is_after = after.file == before.file && after.began >= before.ended;
                prop_assert!(
                    !is_after || after.generation >= before.generation,
                    "{before:?} was done when {after:?} began"
                );
            }
        }
        Ok(())
    }
}

fn act(world: &mut World, faults: Faults, clients: &mut Clients, (action, which, amount): (u8, u8, u64)) {
    let client = usize::from(which) % clients.handles.len();
    let file = usize::from(which / 4) % FILES.len();
    let host = faults.hosts[usize::from(which) % faults.hosts.len()];
    match action {
        0..=7 if !clients.frozen[client] => clients.read(world, client, file),
        8..=10 if !clients.frozen[client] => clients.write(world, client, file),
        11 => world.break_links(client),
        12 => world.clients[client].is_deaf = true,
        13 => world.undeafen(client),
        14 => {
            world.freeze(client);
            clients.frozen[client] = true;
        }
        15 => {
            world.thaw(client);
            clients.frozen[client] = false;
        }
        16 if amount < 4 => {
            let now = world.now;
            world.cell("a").fail_over(now);
        }
        17 => world.silence(host),
        18 => world.unsilence(host),
        19 => {
            let (below, above) = faults.cuts[usize::from(which) % faults.cuts.len()];
            world.cut(below, above);
        }
        20 => {
            world.mend();
            faults.hosts.iter().for_each(|host| world.unsilence(host));
            world.run_for(amount * 700);
        }
        21 => world.run_for(amount * 700),
        _ => {}
    }
    world.run_for(amount * amount / 8);
    clients.collect(world);
}

fn step() -> impl Strategy<Value = (u8, u8, u64)> {
    (0u8..22, 0u8..12, 0u64..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nobody_reads_what_is_older_than_a_write_that_was_done(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 40..160),
    ) {
        let mut world = World::new(&["p", "q"]);
        world.cell("a").commit_delay = std::time::Duration::from_millis(7);
        let mut clients = Clients::new(&mut world);
        world.chance = Some(seed);

        for step in steps {
            act(&mut world, ONE_LAYER, &mut clients, step);
            clients.check()?;
        }
    }

    #[test]
    fn nor_through_two_layers_of_relays(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 40..160),
    ) {
        let mut world = World::layered(&["u", "v"], &["p", "q"]);
        world.cell("a").commit_delay = std::time::Duration::from_millis(7);
        let mut clients = Clients::new(&mut world);
        world.chance = Some(seed);

        for step in steps {
            act(&mut world, TWO_LAYERS, &mut clients, step);
            clients.check()?;
        }
    }
}
