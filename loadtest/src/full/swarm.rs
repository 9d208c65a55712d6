//! One world of a seed, from its plan to its verdict: trouble first, then everything is mended and must come to rest, then
//! what the clients were told is checked.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hasp_client::{CallError, CellName, Client, ErrorCode, Name, OpenOptions};
use hasp_proto::partition::PartitionMap;

use super::clients::{APPENDED, Applicant, connect, together};
use super::faults::Faults;
use super::history::{
    Answer, Broken, Call, Moment, Operation, Watch, carried, check_access, check_appended, check_events,
    check_generations_chain, check_guarded, check_holders, check_read_your_writes, check_zones, delivered,
    shared,
};
use super::journal::{Journal, Pages, now};
use super::layout::Spread;
use super::lives::{Deed, Life, Listing, check_lives};
use super::operator::Operator;
use super::plan::{ClientPlan, Plan};
use super::relocation::{Outcome, Reigns, Relocation, check_owners};
use super::users::{ACL, DIRECTORY, Gate, SESSION, User};
use super::verdict::{Counts, Verdict};
use super::world::{World, address};

/// Before anything goes wrong.
const PEACE: Duration = Duration::from_secs(3);
/// How long everybody has to come to rest after the last fault was mended; longer where leases are: a lost packet is not
/// sent again on the simulated network, so a connection with a hole is noticed by a KeepAlive that is not answered.
const RECOVERY: Duration = Duration::from_secs(20);
/// How much longer a world may go on that has not shown anything by then: a change of the map may have kept everybody
/// waiting until its cell's old cache leases were over.
const SHOWING: Duration = Duration::from_secs(15);
/// How long a client may be without an answer then.
const SILENCE_MAX_MS: u64 = 5_000;
/// How long clients may take to end.
const END_MAX: Duration = Duration::from_secs(30);
/// A world with fewer acknowledged writes has shown nothing.
const WRITES_MIN: u64 = 20;
/// Number of the client that looks at what is left.
const LAST: usize = 99;

/// Runs the world of that seed; with another length of its trouble, if one is given. Draws nothing from the system and
/// reads no clock, but libraries do: the story is the same again only in a process where they cannot.
pub fn run(seed: u64, trouble: Option<Duration>) -> Verdict {
    let mut plan = Plan::draw(seed);
    plan.trouble = trouble.unwrap_or(plan.trouble);
    let journal = Journal::default();
    journal.tells();
    journal.tolerate_losses();
    journal.tell_at(Duration::ZERO, &format!("{plan:?}"));
    let played = catch_unwind(AssertUnwindSafe(|| play(seed, &plan, &journal)));
    let (mut counts, mut broken) =
        played.unwrap_or_else(|_told| (Counts::default(), vec!["the simulation ended in a panic".into()]));
    let pages = journal.read();
    broken.extend(pages.problems.iter().cloned());
    broken.extend(check(&pages, &plan));
    count(&mut counts, &pages, &plan.shape.map());
    if broken.is_empty() && (counts.writes < WRITES_MIN || counts.reads == 0) {
        broken.push(format!("no progress: {} acknowledged writes, {} reads", counts.writes, counts.reads));
    }
    if broken.is_empty() && counts.crashes + counts.hand_overs + counts.cuts + counts.disk_faults == 0 {
        broken.push("nothing went wrong in it".into());
    }
    Verdict { seed, broken, counts, fingerprint: fingerprint(&pages.story), story: pages.story }
}

/// FNV-1a over all lines.
fn fingerprint(story: &[String]) -> u64 {
    let bytes = story.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn play(seed: u64, plan: &Plan, journal: &Journal) -> (Counts, Vec<Broken>) {
    let mut world = World::shaped(seed, plan.shape, journal.clone());
    for (at, clients) in (1..).zip(&plan.hosts) {
        add_users(&mut world, plan, &format!("apps-{at}"), clients);
    }
    if plan.shape.has_moves {
        add_operator(&mut world, plan);
    }
    world.some_master();
    world.run_for(PEACE);
    let mut faults = Faults::new(seed, plan);
    faults.trouble(&mut world);
    let mended = world.now();
    let (mut counts, mut broken) = (faults.counts, faults.broken);
    world.run_for(RECOVERY.max(plan.shape.proxy_lease + RECOVERY / 2));
    await_writes(&mut world);
    broken.extend(half_done(&world, mended));
    broken.extend(end(&mut world, plan));
    count_moves(&mut counts, &journal.read(), &faults.spans);
    if broken.is_empty() {
        broken.extend(look_once_more(&mut world, plan));
        let cells: Vec<CellName> = world.map().cells.keys().cloned().collect();
        broken.extend(cells.iter().flat_map(|cell| compare_replicas(&mut world, cell)));
    }
    counts.millis = world.now().0;
    counts.layered = world.layered();
    (counts, broken)
}

/// Lets clients go on until they have written enough.
fn await_writes(world: &mut World) {
    let until = world.elapsed() + SHOWING;
    let is_written = |operation: &&Operation| matches!(operation.end, Some((_, Answer::Written { .. })));
    while world.elapsed() < until
        && (world.journal.read().operations.iter().filter(is_written).count() as u64) < WRITES_MIN
    {
        world.run_for(Duration::from_secs(1));
    }
}

fn add_users(world: &mut World, plan: &Plan, host: &str, clients: &[ClientPlan]) {
    let replicas = addresses(&world.replica_names());
    let proxies = addresses(&plan.shape.known_proxies());
    let users: Vec<User> = clients
        .iter()
        .map(|client| {
            let mut targets = if client.is_behind_proxies { proxies.clone() } else { replicas.clone() };
            let first = client.number % targets.len();
            targets.rotate_left(first);
            User {
                plan: *client,
                host: host.to_owned(),
                targets,
                journal: world.journal.clone(),
                lock_delay: plan.lock_delay,
                idle_max_ms: plan.idle_max_ms,
                shape: plan.shape,
                shared_per_mille: plan.shared_per_mille,
                watches: plan.has_watches,
                gate: plan.has_gate.then_some(if client.number == 1 { Gate::Keeper } else { Gate::Guest }),
                sessions: Arc::new(AtomicUsize::new(0)),
            }
        })
        .collect();
    world.add_mortal_clients(host, move |env| {
        let users = users.clone();
        async move { together(users.into_iter().map(|user| user.live(env.child("user")))).await }
    });
}

/// It goes to the replicas of the home cell or to proxies.
fn add_operator(world: &mut World, plan: &Plan) {
    let (_, home) = plan.shape.cells().swap_remove(0);
    let hosts = if world.below(2) == 0 { home } else { plan.shape.known_proxies() };
    let (targets, journal) = (addresses(&hosts), world.journal.clone());
    let operator = Operator { targets, journal, shape: plan.shape };
    world.add_mortal_clients("apps-operator", move |env| operator.clone().live(env));
}

/// What was begun while something was wrong is over.
fn half_done(world: &World, mended: Moment) -> Option<Broken> {
    let relocation = world.journal.relocation().filter(|last| last.begun <= mended)?;
    let change = relocation.changing.change();
    Some(format!("no progress: since {} the map is about to change, {change:?}", relocation.begun))
}

fn addresses(hosts: &[String]) -> Vec<String> {
    hosts.iter().map(|host| address(host)).collect()
}

/// Everybody was answered of late, and ends.
fn end(world: &mut World, plan: &Plan) -> Vec<Broken> {
    let mut broken = Vec::new();
    let (stopped, pages) = (world.now(), world.journal.read());
    for client in plan.hosts.iter().flatten() {
        let last = pages.last_success.get(&client.number);
        if last.is_none_or(|last| last.0 + SILENCE_MAX_MS < stopped.0) {
            let at = pages.at_work.get(&client.number);
            broken.push(format!(
                "no progress: client {} was last answered at {last:?}, is at {at:?}",
                client.number
            ));
        }
    }
    broken.extend(late_watches(&pages, stopped));
    world.tell("clients are told to stop");
    world.journal.stop();
    let until = world.elapsed() + END_MAX;
    while !world.journal.read().at_work.is_empty() {
        if world.elapsed() >= until {
            broken.push(format!("no progress: clients do not end, {:?}", world.journal.read().at_work));
            break;
        }
        world.run_for(Duration::from_millis(100));
    }
    broken
}

/// Whoever listens has heard of all but the newest.
fn late_watches(pages: &Pages, stopped: Moment) -> Vec<Broken> {
    let of_client = pages.watches.iter().map(|watch| (watch.client % SESSION, watch));
    // Of those of one client the last counts.
    let newest: BTreeMap<usize, &Watch> = of_client.collect();
    let until = Moment(stopped.0.saturating_sub(SILENCE_MAX_MS));
    let late = newest.into_values().filter(|watch| !watch.is_up_to_date(&pages.operations, until));
    late.map(|watch| {
        let last = watch.told.last();
        format!("P-EVENT: client {} does not hear of {}: last {last:?}", watch.client, watch.file)
    })
    .collect()
}

/// Whoever comes last sees what is left.
fn look_once_more(world: &mut World, plan: &Plan) -> Vec<Broken> {
    let places = plan.shape.places();
    let directories = plan.shape.directories();
    let targets = match plan.shape.spread {
        Spread::One => addresses(&world.replica_names()),
        Spread::Prefix | Spread::Ring => addresses(&plan.shape.known_proxies()),
    };
    let who = Applicant::new(LAST, targets, world.journal.clone());
    world.add_clients("last", move |env| async move {
        let client = connect(&env, &who).await?;
        for file in [APPENDED, places.replaced, places.guarded] {
            let handle = client.open(file, OpenOptions::create_file("")).await?.handle;
            let operation = who.journal.begun(LAST, file, Call::Read);
            let read = handle.get_contents_and_stat().await?;
            let answer = Answer::Read {
                contents: String::from_utf8_lossy(&read.contents).into_owned(),
                generation: read.stat.content_generation.0,
                position: read.position.ok_or("a cell answered")?,
            };
            who.journal.ended(operation, answer);
        }
        for directory in directories {
            list_once_more(&client, &who.journal, directory).await?;
        }
        client.close().await;
        Ok(())
    });
    let until = world.elapsed() + END_MAX;
    while !world.step() {
        if world.elapsed() >= until {
            return vec!["no progress: a last look is not answered".into()];
        }
    }
    Vec::new()
}

async fn list_once_more(client: &Client, journal: &Journal, name: String) -> Result<(), CallError> {
    let opened = match client.open(name.as_str(), OpenOptions::read()).await {
        Err(error) if error.code == ErrorCode::NotFound => return Ok(()),
        opened => opened?.handle,
    };
    let begun = now();
    let listed = opened.read_dir().await?;
    let shown = listed.children.into_iter().map(|child| (child.component, child.stat.instance.0));
    journal.listed(Listing {
        client: LAST,
        directory: name,
        within: opened.instance().0,
        begun,
        ended: now(),
        position: listed.position.expect("a cell answered"),
        children: shown.collect(),
    });
    Ok(())
}

/// P-STOP: replicas that have applied the same have the same state, and logs agree wherever both have an entry that is
/// committed.
fn compare_replicas(world: &mut World, cell: &CellName) -> Vec<Broken> {
    let mut broken = Vec::new();
    let until = world.elapsed() + END_MAX;
    let digests = loop {
        let digests = world.digests(cell);
        let mut applied = digests.values().map(|(index, _)| index);
        let first = applied.next();
        if applied.all(|index| Some(index) == first) {
            break digests;
        }
        if world.elapsed() >= until {
            return vec![format!("no progress: replicas do not catch up, {digests:?}")];
        }
        world.run_for(Duration::from_millis(50));
    };
    let mut checksums = digests.values().map(|(_, checksum)| checksum);
    let first = checksums.next();
    if !checksums.all(|checksum| Some(checksum) == first) {
        broken.push(format!("P-STOP: replicas differ, {digests:?}"));
    }
    let committed = digests.values().map(|(index, _)| *index).min().unwrap_or_default();
    let mut entries: BTreeMap<u64, (u64, String, String)> = BTreeMap::new();
    for (name, log) in world.logs(cell) {
        for (term, index, payload) in log.into_iter().filter(|(_, index, _)| *index <= committed) {
            let entry = entries.entry(index).or_insert_with(|| (term, payload.clone(), name.clone()));
            if (entry.0, &entry.1) != (term, &payload) {
                broken.push(format!("P-DUR: {name} and {} have different entries {index}", entry.2));
            }
        }
    }
    broken
}

/// All that must hold of what clients were told.
fn check(pages: &Pages, plan: &Plan) -> Vec<Broken> {
    let operations = &pages.operations;
    let last = |operation: &&Operation| operation.client == LAST && operation.file == APPENDED;
    let appended = match operations.iter().find(last).and_then(|operation| operation.end.as_ref()) {
        Some((_, Answer::Read { contents, .. })) => check_appended(operations, APPENDED, contents),
        // What kept it from being read is told already.
        _ => Ok(()),
    };
    let checks = [
        ("P-DUR, P-ONCE", check_generations_chain(operations)),
        ("P-LIN, P-MONO", check_read_your_writes(operations)),
        ("P-LIN", check_zones(operations)),
        ("P-DUR, P-ONCE", appended),
        ("P-LOCK, P-DELAY", check_holders(&pages.holds)),
        ("P-EVENT", check_events(operations, &pages.watches)),
        ("P-ACL", check_access(operations, &pages.knocks, ACL, plan.shape.is_acl_elsewhere())),
        ("P-SEQ", check_guarded(operations, &pages.holds)),
        ("P-LIN, P-DUR, P-ONCE", check_lives(&pages.lives, &pages.listings)),
        ("P-MOVE", check_owners(&plan.shape.map(), pages)),
    ];
    let broken = checks.into_iter().filter_map(|(rule, result)| Some(format!("{rule}: {}", result.err()?)));
    broken.collect()
}

fn count(counts: &mut Counts, pages: &Pages, map: &PartitionMap) {
    let noted = |what: &str| pages.notes.get(what).copied().unwrap_or_default();
    counts.worlds = 1;
    counts.elections = pages.elections;
    counts.locks = pages.holds.len() as u64;
    counts.shared = shared(&pages.holds) as u64;
    counts.events = delivered(&pages.watches) as u64;
    counts.let_in = pages.knocks.iter().filter(|knock| knock.is_allowed).count() as u64;
    counts.shut_out = pages.knocks.len() as u64 - counts.let_in;
    counts.listings = pages.listings.len() as u64;
    counts.lives = pages.lives.iter().filter(|life| life.done.is_some()).count() as u64;
    let done: Vec<&Life> = pages.lives.iter().filter(|life| life.done.is_some()).collect();
    // No change of the map concerns the nodes of the directories.
    let is_across = |life: &&&Life| {
        let directory = Name::parse(&life.directory).expect("a good name");
        life.done.as_ref().map(|(_, position)| &position.cell) != map.owner(&directory)
    };
    counts.across = done.iter().filter(is_across).count() as u64;
    let reigns = Reigns::of(map, &pages.relocations);
    let is_directory = |life: &&&Life| life.deed == Deed::Delete && life.directory == DIRECTORY;
    let directories = done.iter().filter(is_directory).filter(|life| were_elsewhere(life, &reigns));
    counts.directories_across = directories.count() as u64;
    counts.locks_moved = carried(&pages.holds) as u64;
    counts.cached_reads = noted("cached reads");
    counts.sessions_lost = noted("lost sessions");
    for operation in &pages.operations {
        match (&operation.end, &operation.call) {
            (Some((_, Answer::Written { .. })), Call::Write { guard, .. }) => {
                counts.writes += 1;
                counts.guarded += u64::from(guard.is_some());
            }
            (Some((_, Answer::Read { .. })), _) => counts.reads += 1,
            _ => {}
        }
    }
}

/// Whether the children of a node were in another cell when it was deleted, whichever map held just then.
fn were_elsewhere(life: &Life, reigns: &Reigns) -> bool {
    let Some((ended, _)) = life.done else { return false };
    let name = Name::parse(&format!("{}/{}", life.directory, life.name)).expect("a good name");
    reigns.between(life.begun, ended).all(|map| map.owner(&name) != map.children_owner(&name))
}

fn count_moves(counts: &mut Counts, pages: &Pages, troubles: &[(Duration, Duration)]) {
    let moves = || pages.relocations.iter().filter(|relocation| relocation.is_done());
    counts.moves = moves().count() as u64;
    counts.moves_in_trouble = moves().filter(|relocation| relocation.is_troubled(troubles)).count() as u64;
    let is_recalled = |relocation: &&Relocation| relocation.has_ended(Outcome::GivenUp);
    counts.moves_recalled = pages.relocations.iter().filter(is_recalled).count() as u64;
}
