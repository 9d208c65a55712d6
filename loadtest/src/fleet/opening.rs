//! How one client comes to have its session and handles, and who watches it from then on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use hasp_client::{Client, ConnectOptions, Events, OpenOptions, Service, SessionEvent};
use hasp_rt::env::Env;

use super::{CONNECT_TIMEOUT, LoadClient, Tally};

/// Tries to get a client its session.
const CONNECT_TRIES: usize = 3;

/// Gets one client its session.
pub(super) struct Opener {
    pub(super) number: usize,
    pub(super) env: Env,
    pub(super) service: Service,
    pub(super) options: ConnectOptions,
    pub(super) names: Vec<String>,
    pub(super) tally: Arc<Tally>,
}

impl Opener {
    /// `None` if it cannot get one; why is noted.
    pub(super) async fn open(&self) -> Option<LoadClient> {
        for attempt in 1..=CONNECT_TRIES {
            match self.try_open().await {
                Ok(client) => {
                    self.tally.opened.fetch_add(1, Ordering::Relaxed);
                    return Some(client);
                }
                Err(error) => {
                    tracing::warn!(client = self.number, attempt, error = format!("{error:#}"), "no session");
                    if attempt == CONNECT_TRIES {
                        self.tally.findings().ops.note_failure(format!("open session: {error:#}"));
                    }
                }
            }
        }
        None
    }

    async fn try_open(&self) -> anyhow::Result<LoadClient> {
        let client = Client::join(&self.service, self.options.clone(), &self.env).await.context("join")?;
        let is_doubtful = Arc::new(AtomicBool::new(false));
        let watch = watch(self.number, client.events(), is_doubtful.clone(), self.tally.clone());
        let mut files = Vec::new();
        for name in &self.names {
            let opening = tokio::time::timeout(CONNECT_TIMEOUT, client.open(name, OpenOptions::write()));
            let opened = opening.await.with_context(|| format!("open {name}: no answer"))?;
            files.push(opened.with_context(|| format!("open {name}"))?.handle);
        }
        self.env.tasks.spawn("client-events", watch);
        Ok(LoadClient { number: self.number, client, files, seen: Mutex::default(), is_doubtful })
    }
}

/// Counts what happens to a session until it is over.
async fn watch(client: usize, mut events: Events, is_doubtful: Arc<AtomicBool>, tally: Arc<Tally>) {
    let mut is_lost = false;
    while let Some(event) = events.next().await {
        match &event {
            SessionEvent::Jeopardy { .. } => {
                is_doubtful.store(true, Ordering::Release);
                tally.jeopardy.fetch_add(1, Ordering::Relaxed);
            }
            SessionEvent::Safe { .. } => is_doubtful.store(is_lost, Ordering::Release),
            SessionEvent::Expired(_) | SessionEvent::CellLost { .. } => {
                is_doubtful.store(true, Ordering::Release);
                if !is_lost {
                    is_lost = true;
                    tracing::warn!(client, ?event, "session lost");
                    tally.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            SessionEvent::FailOver { .. } | SessionEvent::Missed(_) => {}
        }
    }
}
