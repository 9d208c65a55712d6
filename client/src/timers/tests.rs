//! When sleepers wake, and how long they are kept.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;

struct Napper {
    alarm: Alarm,
    woken: AtomicUsize,
}

impl Napper {
    fn new(timers: &Timers) -> Arc<Self> {
        Arc::new(Self { alarm: timers.alarm(), woken: AtomicUsize::new(0) })
    }

    fn set(self: &Arc<Self>, millis: Option<u64>) {
        self.alarm.set(|| millis.map(Time::from_millis), self.clone());
    }

    fn woken(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }
}

impl Sleeper for Napper {
    fn wake(self: Arc<Self>) {
        self.alarm.rung();
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

async fn until(env: &Env, millis: u64) {
    env.clock.sleep_until(Time::from_millis(millis)).await;
    tokio::task::yield_now().await;
}

#[tokio::test(start_paused = true)]
async fn each_sleeper_wakes_at_its_deadline() {
    let env = Env::in_memory(1);
    let timers = Timers::new(&env);
    let (early, late) = (Napper::new(&timers), Napper::new(&timers));

    late.set(Some(2_000));
    early.set(Some(1_000));
    until(&env, 1_500).await;

    assert_eq!((early.woken(), late.woken()), (1, 0));
    until(&env, 2_500).await;
    assert_eq!((early.woken(), late.woken()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_replaces_a_later_one_and_not_the_other_way_round() {
    let env = Env::in_memory(1);
    let timers = Timers::new(&env);
    let napper = Napper::new(&timers);

    napper.set(Some(5_000));
    napper.set(Some(1_000));
    napper.set(Some(9_000));
    until(&env, 1_500).await;

    assert_eq!(napper.woken(), 1);
    until(&env, 20_000).await;
    assert_eq!(napper.woken(), 1, "the others were given up");
}

#[tokio::test(start_paused = true)]
async fn a_sleeper_is_kept_while_it_has_a_deadline_and_no_longer() {
    let env = Env::in_memory(1);
    let timers = Timers::new(&env);
    let napper = Napper::new(&timers);
    let weak = Arc::downgrade(&napper);

    napper.set(Some(1_000));
    drop(napper);
    assert!(weak.upgrade().is_some());
    until(&env, 2_000).await;

    assert!(weak.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_clone() {
    let env = Env::in_memory(1);
    let timers = Timers::new(&env);
    let clone = timers.clone();

    drop(timers);
    until(&env, 10).await;
    assert_eq!(env.tasks.running(), 1);
    drop(clone);
    until(&env, 20).await;

    assert_eq!(env.tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_kept_after_the_tasks_were_stopped() {
    let env = Env::in_memory(1);
    let timers = Timers::new(&env);
    let napper = Napper::new(&timers);
    env.tasks.drain(Duration::from_secs(1)).await.unwrap();

    napper.set(Some(1_000));

    assert_eq!(Arc::strong_count(&napper), 1);
}
