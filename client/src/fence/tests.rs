//! Asking, waiting for older holders, and the layer.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::sequencer::SequencerBody;
use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;
use tower::{Layer as _, ServiceExt as _};

use super::*;

const LOCK: &str = "/ls/dev/store/lock";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn sealed(lock: &str, mode: LockMode, generation: u64, key: u8) -> Sequencer {
    let body = SequencerBody {
        cell: CellName::new("a"),
        name: name(lock),
        instance: Instance(2),
        mode,
        lock_generation: Generation(generation),
    };
    Sequencer::new(HandleKey::new(vec![key; 32].into()).seal_sequencer(&body)).unwrap()
}

fn sequencer(generation: u64) -> Sequencer {
    sealed(LOCK, LockMode::Exclusive, generation, 7)
}

fn outdated(shown: u64, newest: u64) -> FenceError {
    FenceError::Outdated { name: name(LOCK), shown: Generation(shown), newest: Generation(newest) }
}

/// A cell that knows which acquisitions stand.
#[derive(Clone, Default)]
struct Cell {
    standing: Arc<Mutex<BTreeSet<String>>>,
    asked: Arc<AtomicUsize>,
    /// Answers nothing.
    is_away: bool,
}

impl Cell {
    fn grants(&self, sequencer: &Sequencer) {
        self.standing.lock().unwrap().insert(sequencer.to_string());
    }

    fn takes(&self, sequencer: &Sequencer) {
        self.standing.lock().unwrap().remove(&sequencer.to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl AskCell for Cell {
    fn ask<'a>(&'a self, sequencer: &'a Sequencer) -> Asked<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let stands = self.standing.lock().unwrap().contains(&sequencer.to_string());
        let is_away = self.is_away;
        Box::pin(async move {
            if is_away {
                std::future::pending::<()>().await;
            }
            let gone = || CallError::local(ErrorCode::SequencerInvalid, "it does not stand");
            stands.then_some(()).ok_or_else(gone)
        })
    }
}

fn one_lock() -> FenceConfig {
    FenceConfig::lock(name(LOCK))
}

fn invalid(result: Result<(), FenceError>) -> bool {
    matches!(result, Err(FenceError::Invalid(_)))
}

#[tokio::test]
async fn an_offline_fence_goes_by_the_order_of_generations() {
    let fence = Fence::offline(one_lock());

    assert_eq!(fence.check(&sequencer(5)).await, Ok(()));
    assert_eq!(fence.check_now(sequencer(7).to_string().as_str()), Ok(()));
    assert_eq!(fence.check(&sequencer(5)).await, Err(outdated(5, 7)));
    assert_eq!(fence.check_now(sequencer(6)), Err(outdated(6, 7)));
    assert_eq!(fence.clone().check(&sequencer(7)).await, Ok(()), "a clone is the same fence");
}

#[tokio::test]
async fn only_sequencers_of_the_guarding_locks_and_modes_are_let_through() {
    let one = Fence::offline(one_lock());
    let below = Fence::offline(FenceConfig::below(name("/ls/dev/store")));
    let any = Fence::offline(FenceConfig { modes: Modes::Any, ..one_lock() });
    let other = sealed("/ls/dev/store/other", LockMode::Exclusive, 5, 7);
    let outside = sealed("/ls/dev/storehouse", LockMode::Exclusive, 5, 7);
    let directory = sealed("/ls/dev/store", LockMode::Exclusive, 5, 7);
    let shared = sealed(LOCK, LockMode::Shared, 5, 7);
    let is_wrong_lock = |result| matches!(result, Err(FenceError::WrongLock { .. }));

    assert!(is_wrong_lock(one.check_now(&other)));
    assert_eq!(below.check_now(&other), Ok(()));
    assert!(is_wrong_lock(below.check_now(&outside)));
    assert!(is_wrong_lock(below.check_now(&directory)));
    assert_eq!(one.check_now(&shared), Err(FenceError::WrongMode { shown: LockMode::Shared }));
    assert_eq!(any.check_now(&shared), Ok(()));
    assert!(matches!(one.check_now("sesame"), Err(FenceError::Malformed(_))));
}

#[tokio::test]
async fn a_fence_that_asks_at_first_sight_asks_once_for_each_acquisition() {
    let cell = Cell::default();
    let fence = Fence::asking(one_lock(), Ask::AtFirstSight, cell.clone());
    cell.grants(&sequencer(5));

    for _ in 0..3 {
        assert_eq!(fence.check(&sequencer(5)).await, Ok(()));
    }
    assert_eq!(cell.asked(), 1);
    cell.grants(&sequencer(6));
    assert_eq!(fence.check(&sequencer(6)).await, Ok(()));
    assert_eq!(fence.check(&sequencer(5)).await, Err(outdated(5, 6)));
    assert_eq!(cell.asked(), 2, "an outdated one is no question");
}

#[tokio::test]
async fn what_the_cell_denies_leaves_no_trace() {
    let cell = Cell::default();
    let fence = Fence::asking(one_lock(), Ask::AtFirstSight, cell.clone());
    cell.grants(&sequencer(5));
    let forged = sealed(LOCK, LockMode::Exclusive, 1_000, 8);

    assert!(invalid(fence.check(&forged).await));

    assert_eq!(fence.check(&sequencer(5)).await, Ok(()), "the true holder is not locked out");
    let other_bytes = sealed(LOCK, LockMode::Exclusive, 5, 8);
    assert!(invalid(fence.check(&other_bytes).await), "a known generation is no proof");
}

#[tokio::test]
async fn a_fence_that_always_asks_notices_a_lock_that_was_only_lost() {
    let (cell, lax_cell) = (Cell::default(), Cell::default());
    let always = Fence::asking(one_lock(), Ask::Always, cell.clone());
    let at_first_sight = Fence::asking(one_lock(), Ask::AtFirstSight, lax_cell.clone());
    for (cell, fence) in [(&cell, &always), (&lax_cell, &at_first_sight)] {
        cell.grants(&sequencer(5));
        assert_eq!(fence.check(&sequencer(5)).await, Ok(()));
        cell.takes(&sequencer(5));
    }

    assert!(invalid(always.check(&sequencer(5)).await));
    assert_eq!(at_first_sight.check(&sequencer(5)).await, Ok(()), "nobody newer has shown up");
}

#[tokio::test]
async fn what_may_have_been_forgotten_is_asked_about_and_offline_refused() {
    let two = FenceConfig { locks_max: 1, ..FenceConfig::below(name("/ls/dev")) };
    let cell = Cell::default();
    let (asking, offline) =
        (Fence::asking(two.clone(), Ask::AtFirstSight, cell.clone()), Fence::offline(two));
    let other = sealed("/ls/dev/other", LockMode::Exclusive, 9, 7);
    for shown in [&sequencer(5), &sequencer(4), &other] {
        cell.grants(shown);
    }
    for fence in [&asking, &offline] {
        fence.check(&sequencer(5)).await.unwrap();
        fence.check(&other).await.unwrap();
    }

    let undecided = FenceError::Undecided { name: name(LOCK), shown: Generation(4) };
    assert_eq!(offline.check(&sequencer(4)).await, Err(undecided.clone()));
    assert_eq!(asking.check_now(sequencer(4)), Err(undecided));
    cell.takes(&sequencer(4));
    assert!(invalid(asking.check(&sequencer(4)).await));
    assert_eq!(asking.check(&sequencer(5)).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_does_not_answer_refuses_for_now() {
    let cell = Cell { is_away: true, ..Cell::default() };
    let fence = Fence::asking(one_lock(), Ask::AtFirstSight, cell);

    let refused = fence.check(&sequencer(5)).await.unwrap_err();

    assert!(matches!(refused, FenceError::Unanswered(_)) && refused.may_retry(), "{refused}");
    assert_eq!(fence.check_now("hasp1.00").unwrap_err().http_status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_newer_holder_waits_until_the_requests_of_older_ones_have_ended() {
    let fence = Fence::offline(one_lock());
    let (one, two) = (fence.enter(&sequencer(5)).await.unwrap(), fence.enter(&sequencer(5)).await.unwrap());
    let mut newer = Box::pin(fence.enter(sequencer(6)));
    assert!(futures::poll(&mut newer).is_none());

    assert_eq!(fence.enter(&sequencer(5)).await.unwrap_err(), outdated(5, 6), "none start any more");
    drop(one);
    assert!(futures::poll(&mut newer).is_none(), "one goes on still");
    drop(two);

    assert_eq!(newer.await.unwrap().sequencer(), &sequencer(6));
}

#[tokio::test]
async fn who_waits_is_refused_when_somebody_newer_comes() {
    let fence = Fence::offline(one_lock());
    let oldest = fence.enter(&sequencer(5)).await.unwrap();
    let mut middle = Box::pin(fence.enter(sequencer(6)));
    assert!(futures::poll(&mut middle).is_none());
    let mut newest = Box::pin(fence.enter(sequencer(7)));
    assert!(futures::poll(&mut newest).is_none());

    assert_eq!(middle.await.unwrap_err(), outdated(6, 7));
    drop(oldest);
    assert!(newest.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_whoever_gave_up_is_not_waited_for() {
    let fence = Fence::offline(one_lock());
    let older = fence.enter(&sequencer(5)).await.unwrap();

    assert_eq!(fence.enter(&sequencer(6)).await.unwrap_err(), FenceError::Busy { name: name(LOCK) });

    drop(older);
    assert!(fence.enter(&sequencer(7)).await.is_ok());
}

fn request(sequencers: &[&str]) -> Request<&'static str> {
    let mut request = Request::put("/key");
    for sequencer in sequencers {
        request = request.header(SEQUENCER_HEADER, *sequencer);
    }
    request.body("value").unwrap()
}

fn refuse(error: FenceError) -> Response<String> {
    Response::builder().status(error.http_status()).body(error.to_string()).unwrap()
}

#[tokio::test]
async fn the_layer_lets_the_holder_through_and_answers_for_the_service_else() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let store = tower::service_fn(move |_: Request<&str>| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(Response::new(String::from("done"))) }
    });
    let layer = FenceLayer::new(Fence::offline(one_lock()), sequencer_of_http, refuse);
    let store = layer.layer(store);
    let (old, new) = (sequencer(5).to_string(), sequencer(6).to_string());
    let ask = |sequencers: Vec<&str>| store.clone().oneshot(request(&sequencers));

    assert_eq!(ask(vec![&old]).await.unwrap().status(), StatusCode::OK);
    assert_eq!(ask(vec![&new]).await.unwrap().status(), StatusCode::OK);
    assert_eq!(served.load(Ordering::Relaxed), 2);
    let refused = ask(vec![&old]).await.unwrap();
    assert_eq!(refused.status(), StatusCode::PRECONDITION_FAILED);
    assert!(
        refused.body().starts_with("outdated: /ls/dev/store/lock is held in generation 6"),
        "{refused:?}"
    );
    assert_eq!(ask(vec![]).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(ask(vec![&new, &new]).await.unwrap().status(), StatusCode::BAD_REQUEST, "two are none");
    assert_eq!(served.load(Ordering::Relaxed), 2, "what is refused does not reach the service");
}

#[tokio::test]
async fn a_request_behind_the_layer_goes_on_until_its_response_is_there() {
    let (finish, finished) = oneshot::channel::<()>();
    let finished = Arc::new(Mutex::new(Some(finished)));
    let slow_first = tower::service_fn(move |_: Request<&str>| {
        let wait = finished.lock().unwrap().take();
        async {
            if let Some(wait) = wait {
                wait.await.unwrap();
            }
            Ok::<_, Infallible>(Response::new(String::new()))
        }
    });
    let store = FenceLayer::new(Fence::offline(one_lock()), sequencer_of_http, refuse).layer(slow_first);
    let (old, new) = (sequencer(5).to_string(), sequencer(6).to_string());
    let mut older = Box::pin(store.clone().oneshot(request(&[&old])));
    let mut newer = Box::pin(store.clone().oneshot(request(&[&new])));

    assert!(futures::poll(&mut older).is_none(), "paused in the middle of its write");
    assert!(futures::poll(&mut newer).is_none(), "waits for it");
    finish.send(()).unwrap();

    assert_eq!(older.await.unwrap().status(), StatusCode::OK);
    assert_eq!(newer.await.unwrap().status(), StatusCode::OK);
}

mod futures {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    /// Polls once.
    pub(super) fn poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
