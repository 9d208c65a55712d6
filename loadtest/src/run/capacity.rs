//! The search for the greatest number of clients: ever more of them, all under load, until something bends.

use std::time::Duration;

use hasp_proto::time::Time;

use super::{FINISH, RAMP_SLACK, RAMP_SLACK_PER_CLIENT, SETTLE, Site, Staff, Test, complete, together};
use crate::capacity::{Capacity, Step};
use crate::crew::Crew;
use crate::job::{Order, Progress};
use crate::points;
use crate::report::Phase;
use crate::series::Series;
use crate::status::StatusReader;
use crate::window::{Member, Snapshot, Window, round};

/// The search as it stands.
struct Search {
    began: Time,
    crew: Crew,
    reader: StatusReader,
    steps: Vec<Step>,
    series: Series,
    /// Of the last size that was measured.
    window: Window,
}

impl Test<'_> {
    /// Adds clients step by step, and measures each size, until one does not hold or the greatest did.
    pub(super) async fn capacity(&self, site: &Site) -> anyhow::Result<Phase> {
        let began = self.env.clock.now();
        let mut search = Search {
            began,
            crew: Crew::start(self.env, self.processes, "capacity", &[]).await?,
            reader: StatusReader::new(self.env.clone()),
            steps: Vec::new(),
            series: Series::default(),
            window: Window::default(),
        };
        for clients in self.options.sizes() {
            let step = self.grow(site, &mut search, clients).await?;
            let at = self.env.clock.now().saturating_since(began);
            let bend = step.bend(self.options.latency_max);
            let found = bend.map_or_else(|| "held".to_owned(), |bend| bend.to_string());
            let what = format!("{clients} clients: {found}");
            self.progress.step(&what);
            search.series.mark(at, what);
            search.steps.push(step);
            if bend.is_some() {
                break;
            }
        }
        let clients = search.steps.last().map_or(0, |step| step.clients);
        search.crew.order(Order::End).await?;
        self.progress.step("ending all sessions");
        let ramps = search.crew.ramps(0);
        let finished = search.crew.finished(FINISH).await?;
        let mut phase = Phase { clients, ..Phase::default() };
        (phase.ramp_seconds, phase.ramp) = together(ramps);
        complete(&mut phase, &search.window, finished)?;
        // Workers say what they sent in all, and not what in the last window.
        for worker in phase.processes.iter_mut().filter(|process| process.role == "worker") {
            worker.cpu_us_per_keepalive = None;
        }
        phase.remarks.extend(search.series.remarks());
        phase.series = search.series;
        phase.capacity = Some(Capacity::new(search.steps, self.options.latency_max));
        Ok(phase)
    }

    /// One step: opens as many sessions as are missing, and measures them all.
    async fn grow(&self, site: &Site, search: &mut Search, clients: usize) -> anyhow::Result<Step> {
        let before = search.crew.progress().all;
        let (first, there) = (search.crew.len(), search.steps.last().map_or(0, |step| step.clients));
        let added = clients - there;
        let asked_per_s = self.options.ramp_per_s(added);
        // One process is often enough: there are others from the steps before.
        let workers = self.options.processes(added, 1, self.open_files);
        let all_clients = self.options.clients;
        let staff = Staff { workers, first_worker: first, first_client: there, all_clients };
        let jobs = self.shared_out(site, self.through_proxies(site, added), staff);
        self.progress.step(&format!("opening {added} sessions more, {clients} in all"));
        search.crew.join(self.processes, "capacity", &jobs).await?;
        let slack = RAMP_SLACK + RAMP_SLACK_PER_CLIENT * u32::try_from(added).unwrap_or(u32::MAX);
        let deadline = Duration::from_secs_f64(added as f64 / asked_per_s) + slack;
        let is_open = search.crew.ramp_ends(deadline, |progress| self.show_ramp(progress, clients)).await?;
        let mut step = Step { clients, asked_per_s, ..Step::default() };
        if !is_open {
            step.opened = search.crew.progress().all.sessions.opened;
            search.crew.dismiss(first).await?;
            return Ok(step);
        }
        let (seconds, open) = together(search.crew.ramps(first));
        (step.open, step.opened_per_s) = (open, round(open.count as f64 / seconds.max(f64::EPSILON)));
        search.crew.order(Order::Begin).await?;
        search.crew.listen(SETTLE, |_| {}).await?;
        self.watch(site, search, &mut step, before).await?;
        Ok(step)
    }

    /// Measures all that are there.
    async fn watch(
        &self,
        site: &Site,
        search: &mut Search,
        step: &mut Step,
        before: Progress,
    ) -> anyhow::Result<()> {
        let Search { crew, reader, series, .. } = search;
        let members: Vec<Member> = site.servers.iter().cloned().chain(crew.members()).collect();
        let (hold, began) = (self.options.duration, self.env.clock.now());
        crew.take_recent();
        let words_before = crew.progress();
        let first = Snapshot::take(self.env, reader, &members).await;
        let show =
            |progress: &_| self.show_load(progress, self.env.clock.now().saturating_since(began), hold);
        crew.listen(hold, show).await?;
        let second = Snapshot::take(self.env, reader, &members).await;
        let window = Window::new(members, first, second);
        let (word, recent) = (crew.progress(), crew.take_recent());
        series.add(word.at.saturating_since(search.began), &window, [words_before, word], &recent);
        let all = word.all;
        step.opened = all.sessions.opened;
        step.latency = recent.summary();
        step.jeopardies = all.sessions.jeopardy.saturating_sub(before.sessions.jeopardy);
        step.lost = all.sessions.lost.saturating_sub(before.sessions.lost);
        step.errors = all.errors.saturating_sub(before.errors);
        step.seconds = round(window.seconds());
        step.at_master_per_s = points::busiest(&window.at_masters_per_s()).map(round);
        step.master_cpu = points::master_cpu(&window.processes(&Default::default()), step.seconds);
        search.window = window;
        Ok(())
    }
}
