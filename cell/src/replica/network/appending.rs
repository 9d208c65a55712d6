//! The append stream to one follower: many requests in flight, answered in their order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, stream};
use openraft::RPCTypes;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::acks::Acks;
use super::super::connect::Link;
use super::super::types::Types;
use super::super::wire::{self, pb};
use super::{RpcError, malformed, now, rpc_error};

/// How long the news that an entry is committed waits for further entries to travel with. Under load it costs no
/// message of its own, which halves what an entry costs a follower.
const COMMIT_WAITS: Duration = Duration::from_millis(20);

type Request = AppendEntriesRequest<Types>;
type Answer = Result<StreamAppendResult<Types>, RpcError>;

/// Sends all of `input` on one stream and returns the answers, which come in the order of the requests.
pub async fn pipelined<'s, S>(
    link: Arc<Link>,
    acks: Arc<Acks>,
    stall: Duration,
    mut input: S,
) -> Result<BoxStream<'s, Answer>, RpcError>
where
    S: Stream<Item = Request> + Send + Unpin + 'static,
{
    // openraft waits out its backoff inside the input. To connect before the first request is there would be to try a
    // dead peer again and again without a pause.
    let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
    let in_flight = Arc::new(InFlight::default());
    let sent = in_flight.clone();
    let mut addressed = Some(link.addressed());
    let is_purged = Arc::new(AtomicBool::new(false));
    let notice = is_purged.clone();
    // The first request is never held back: without entries it asks where the follower's log ends.
    let requests = stream::iter([first]).chain(with_commits_carried(input));
    let requests = requests.take_while(move |request| {
        let lacks = lacks_entries(request);
        notice.fetch_or(lacks, Ordering::Relaxed);
        std::future::ready(!lacks)
    });
    let requests = requests.map(move |request| {
        sent.push(Sent { term: request.vote.leader_id.term, at: now() });
        wire::put_append(request, addressed.take())
    });
    let answers = link.call(stall, |mut client| async move { client.append_stream(requests).await }).await;
    let answers = answers.map_err(|status| rpc_error(&link, RPCTypes::AppendEntries, stall, &status))?;

    let answering = Answering { link, answers, acks, in_flight, is_purged, stall };
    Ok(Box::pin(stream::unfold(Some(answering), |state| async move {
        let mut answering = state?;
        match answering.next().await? {
            Ok(Ok(matching)) => Some((Ok(Ok(matching)), Some(answering))),
            last => Some((last, None)),
        }
    })))
}

/// Whether entries that should be in it were purged since openraft decided to send them: it goes on from where the
/// follower is, whatever the log still has. To send that would tell the follower nothing for ever, or put a hole into its
/// log. Once it is told of an error openraft looks at the log again, and sends a snapshot.
fn lacks_entries(request: &Request) -> bool {
    let is_behind = request.prev_log_id < request.leader_commit;
    wire::has_hole(request) || (request.entries.is_empty() && is_behind)
}

/// Passes requests on. One without entries, which only tells of a commit, gives way to the next if that comes soon:
/// every request tells of the newest commit. openraft misses no answer, since such a request has nothing to match.
fn with_commits_carried<S>(input: S) -> impl Stream<Item = Request> + Send
where
    S: Stream<Item = Request> + Send + Unpin,
{
    stream::unfold(input.fuse(), async |mut input| {
        let mut request = input.next().await?;
        let until = now() + COMMIT_WAITS;
        while request.entries.is_empty() {
            match timeout_at(until, input.next()).await {
                Ok(Some(next)) => request = next,
                Ok(None) | Err(_) => break,
            }
        }
        Some((request, input))
    })
}

/// When a request left, and of which leader it is.
struct Sent {
    term: u64,
    at: Instant,
}

/// The requests that are not answered yet.
#[derive(Default)]
struct InFlight(Mutex<VecDeque<Sent>>);

impl InFlight {
    fn push(&self, sent: Sent) {
        self.0.lock().expect("not poisoned").push_back(sent);
    }

    fn pop(&self) -> Option<Sent> {
        self.0.lock().expect("not poisoned").pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().expect("not poisoned").is_empty()
    }
}

/// The answering half of an append stream.
struct Answering {
    link: Arc<Link>,
    answers: tonic::Streaming<pb::AppendResponse>,
    acks: Arc<Acks>,
    in_flight: Arc<InFlight>,
    /// The requests ended because one lacked its entries.
    is_purged: Arc<AtomicBool>,
    stall: Duration,
}

impl Answering {
    async fn next(&mut self) -> Option<Answer> {
        loop {
            let waited_before = !self.in_flight.is_empty();
            match timeout(self.stall, self.answers.message()).await {
                Ok(Ok(Some(answer))) => return Some(self.answered(answer)),
                Ok(Ok(None)) if self.is_purged.swap(false, Ordering::Relaxed) => {
                    let status = tonic::Status::data_loss("entries to send were purged meanwhile");
                    return Some(Err(rpc_error(&self.link, RPCTypes::AppendEntries, self.stall, &status)));
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some(Err(self.failed(&status).await)),
                // Silence is an error only when a request was in flight for all of it.
                Err(_elapsed) if waited_before => {
                    let status = tonic::Status::deadline_exceeded("append stream stalled");
                    return Some(Err(self.failed(&status).await));
                }
                Err(_elapsed) => {}
            }
        }
    }

    fn answered(&self, answer: pb::AppendResponse) -> Answer {
        let result = wire::get_append_result(answer).map_err(malformed)?;
        if let Some(Sent { term, at }) = self.in_flight.pop()
            && result.is_ok()
        {
            self.acks.accepted(self.link.target(), term, at);
        }
        Ok(result)
    }

    async fn failed(&self, status: &tonic::Status) -> RpcError {
        self.link.abandon().await;
        rpc_error(&self.link, RPCTypes::AppendEntries, self.stall, status)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::types::{Entry, EntryPayload, Payload, Vote, log_id};
    use super::*;

    /// A request with entries up to `last`, or none, that tells of a commit up to `commit`.
    fn request(entries: std::ops::RangeInclusive<u64>, commit: u64) -> Request {
        let entry = |index| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(Payload(Bytes::from_static(b"entry"))),
        };
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(1, entries.start() - 1)),
            leader_commit: Some(log_id(1, commit)),
            entries: entries.map(entry).collect(),
        }
    }

    fn only_commit(commit: u64) -> Request {
        request(commit + 1..=commit, commit)
    }

    /// What comes through of these requests, each so many milliseconds after the one before: how many entries it has,
    /// the commit that it tells of, and when, in milliseconds.
    async fn through(requests: Vec<(u64, Request)>) -> Vec<(usize, u64, u128)> {
        let input = stream::iter(requests).then(|(pause, request)| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            request
        });
        let start = now();
        let sent = with_commits_carried(Box::pin(input)).map(|request| {
            let commit = request.leader_commit.expect("always given").index;
            (request.entries.len(), commit, start.elapsed().as_millis())
        });
        sent.collect().await
    }

    #[test]
    fn a_request_that_lacks_entries_is_known_by_its_hole_or_by_what_is_committed_beyond_it() {
        let hole = Request { prev_log_id: Some(log_id(1, 3)), ..request(6..=7, 7) };
        let purged = Request { prev_log_id: Some(log_id(1, 3)), ..only_commit(7) };
        let torn = Request {
            entries: [request(4..=4, 7).entries, request(6..=6, 7).entries].concat(),
            ..request(4..=4, 7)
        };

        for lacking in [hole, purged, torn] {
            assert!(lacks_entries(&lacking), "{lacking:?}");
        }
        for whole in [request(4..=7, 2), request(4..=7, 7), only_commit(7), only_commit(0)] {
            assert!(!lacks_entries(&whole), "{whole:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_travels_with_the_entries_that_follow_it_soon() {
        let requests = vec![(0, request(1..=2, 0)), (1, only_commit(2)), (5, request(3..=3, 2))];

        assert_eq!(through(requests).await, [(2, 0, 0), (1, 2, 6)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_nothing_follows_is_told_a_little_later() {
        let requests = vec![(0, request(1..=2, 0)), (1, only_commit(2)), (500, request(3..=3, 2))];

        assert_eq!(through(requests).await, [(2, 0, 0), (0, 2, 21), (1, 2, 501)]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_commits_the_newest_is_told_as_early_as_the_first_would_be() {
        let requests = vec![(0, only_commit(2)), (15, only_commit(3)), (15, only_commit(4))];

        assert_eq!(through(requests).await, [(0, 3, 20), (0, 4, 30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_requests_leaves_nothing_behind() {
        assert_eq!(through(vec![(0, only_commit(2))]).await, [(0, 2, 0)]);
    }
}
