//! A store that only the holder of a lock may write to, and a late write of a former holder.
//!
//! ```sh
//! cargo run -p hasp-client --example fenced_store -- --connect 127.0.0.1:7000
//! ```
//!
//! The store knows nothing of locks: a [`FenceLayer`] in front of it looks at the sequencer that each
//! request carries in its header `hasp-sequencer`. It asks the cell when it sees one for the first time
//! and refuses everything older from then on. Here the store is called within the process; the
//! same `tower` service can be given to hyper or axum.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_client::fence::{
    Ask, Fence, FenceConfig, FenceError, FenceLayer, Fenced, SEQUENCER_HEADER, sequencer_of_http,
};
use hasp_client::{Client, ConnectOptions, Env, Handle, LockMode, OpenOptions, Sequencer};
use http::{Request, Response, StatusCode};
use tower::{Layer as _, Service, ServiceExt as _};

const LOCK: &str = "/ls/local/example-store-lock";
const ACQUIRE_MAX: Duration = Duration::from_secs(120);

/// Keeps what is PUT under a path, and GETs it again.
#[derive(Clone, Default)]
struct Store {
    values: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Service<Request<String>> for Store {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let key = request.uri().path().to_owned();
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match request.method().as_str() {
            "PUT" => values.insert(key, request.into_body()),
            _ => values.get(&key).cloned(),
        };
        ready(Ok(Response::new(value.unwrap_or_default())))
    }
}

type FencedStore = Fenced<Store, fn(&Request<String>) -> Option<String>, fn(FenceError) -> Response<String>>;

/// The store as others see it.
fn fenced(lock: &Handle, client: &Client) -> FencedStore {
    let config = FenceConfig::lock(lock.name().clone());
    let fence = Fence::asking(config, Ask::AtFirstSight, client.clone());
    FenceLayer::new(fence, sequencer_of_http as fn(&_) -> _, refuse as fn(_) -> _).layer(Store::default())
}

fn refuse(error: FenceError) -> Response<String> {
    let mut response = Response::new(error.to_string());
    *response.status_mut() = error.http_status();
    response
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let connect = arguments()?;
    let env = Env::system().context("draw random numbers")?;
    let session = || async { Client::connect(ConnectOptions::new(&connect), &env).await.context("connect") };
    let own = session().await?;
    let lock = own.open(LOCK, OpenOptions::create_file("")).await.context("open the lock's file")?.handle;
    let store = fenced(&lock, &own);

    let alice = session().await?;
    let (_alices_lock, alices) = acquire(&alice).await.context("alice")?;
    expect(put(&store, "by alice", &alices).await?, StatusCode::OK)?;

    // She sends another write. Before it arrives she is gone, and with her session her lock.
    let late = put(&store, "late, by alice", &alices);
    alice.close().await;

    let bob = session().await?;
    let (_bobs_lock, bobs) = acquire(&bob).await.context("bob")?;
    expect(put(&store, "by bob", &bobs).await?, StatusCode::OK)?;

    // It arrives, after all.
    expect(late.await?, StatusCode::PRECONDITION_FAILED)?;

    let value = store.clone().oneshot(request("GET", "", &bobs)?).await?;
    println!("the store holds what was written {}", value.body());
    bob.close().await;
    own.close().await;
    Ok(())
}

/// Becomes the one who may write, until the handle or its session ends.
async fn acquire(client: &Client) -> anyhow::Result<(Handle, Sequencer)> {
    let lock = client.open(LOCK, OpenOptions::write()).await.context("open the lock's file")?.handle;
    let acquiring = tokio::time::timeout(ACQUIRE_MAX, lock.acquire(LockMode::Exclusive)).await;
    acquiring.context("others hold the lock for too long")?.context("acquire")?;
    let sequencer = lock.get_sequencer().await.context("get the sequencer")?;
    println!("acquired in generation {}", sequencer.lock_generation());
    Ok((lock, sequencer))
}

fn request(method: &str, value: &str, sequencer: &Sequencer) -> anyhow::Result<Request<String>> {
    let request = Request::builder().method(method).uri("/motd");
    let request = request.header(SEQUENCER_HEADER, sequencer.to_string());
    request.body(value.to_owned()).context("make a request")
}

async fn put(store: &FencedStore, value: &str, sequencer: &Sequencer) -> anyhow::Result<Response<String>> {
    let response = store.clone().oneshot(request("PUT", value, sequencer)?).await?;
    println!("{value:?}: {} {}", response.status(), response.body());
    Ok(response)
}

fn expect(response: Response<String>, status: StatusCode) -> anyhow::Result<()> {
    if response.status() != status {
        bail!("the store said {}, not {status}", response.status());
    }
    Ok(())
}

fn arguments() -> anyhow::Result<Vec<String>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [option, addresses] if option == "--connect" => Ok(addresses.split(',').map(str::to_owned).collect()),
        _ => bail!("usage: fenced_store --connect HOST:PORT[,HOST:PORT...]"),
    }
}
