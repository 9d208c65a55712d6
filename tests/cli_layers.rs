//! Two layers of proxies on real sockets: what clients of different proxies see of one another, and what they keep when
//! a proxy of the upper layer is killed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/one_cell.rs"]
mod one_cell;
#[path = "cli_dev/system.rs"]
mod system;

use std::time::Duration;

use hasp_client::{
    Client, ConnectOptions, ErrorCode, EventKind, EventMask, Handle, HandleEvent, LockMode, OpenOptions,
};
use hasp_rt::env::Env;
use one_cell::{OneCell, OneProxy};
use serde_json::{Value, json};
use system::{Dev, hasp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// For one step, on a busy machine. A write waits up to 12 s for the cache lease of a proxy that was killed.
const DEADLINE: Duration = Duration::from_secs(60);
const FILE: &str = "/ls/dev/shared";

#[tokio::test]
async fn clients_behind_two_layers_see_each_other_and_keep_what_they_hold_when_an_upper_proxy_is_killed() {
    let env = Env::system().unwrap();
    let cell = OneCell::start().await;
    let mut upper = vec![cell.start_proxy("upper-1", &[]).await, cell.start_proxy("upper-2", &[]).await];
    let above: Vec<_> = upper.iter().map(|proxy| proxy.address.clone()).collect();
    let above: Vec<_> = above.iter().map(String::as_str).collect();
    // Of three at least two are behind the same one.
    let mut lower = Vec::new();
    for name in ["lower-1", "lower-2", "lower-3"] {
        lower.push(cell.start_proxy(name, &above).await);
    }
    let status = status(&lower[0].address).await;
    the_layers_are_shown(&status, &upper, &lower);
    let shared = upper.iter().position(|proxy| sessions(&status, &proxy.address) >= 2).unwrap();
    let mut upper_proxy = upper.remove(shared);
    let below = behind(&env, &upper_proxy, &lower).await;

    let alice = Client::connect(ConnectOptions::new([&lower[below[0]].address]), &env).await.unwrap();
    let bob = Client::connect(ConnectOptions::new([&lower[below[1]].address]), &env).await.unwrap();
    let of_alice = alice.open(FILE, OpenOptions::create_file("one")).await.unwrap().handle;
    assert_eq!(read(&of_alice).await, "one");
    let events = EventMask::of([EventKind::ContentsModified]);
    let of_bob = bob.open(FILE, OpenOptions::write().events(events)).await.unwrap().handle;
    both_layers_answer_from_their_caches(&env, &upper_proxy, &lower[below[0]], &of_bob).await;

    let mut told = of_bob.events();
    done(of_alice.set_contents("two", None)).await;
    assert_eq!(read(&of_bob).await, "two", "once the write has returned nobody has the old contents");
    let told = timeout(DEADLINE, told.next()).await.unwrap();
    assert!(
        matches!(&told, Some(HandleEvent::Happened(event)) if event.kind == EventKind::ContentsModified),
        "{told:?}"
    );

    done(of_alice.acquire(LockMode::Exclusive)).await;
    let sequencer = done(of_alice.get_sequencer()).await;
    let session = alice.session_id();
    upper_proxy.running.kill().await;
    of_alice.set_sequencer(&sequencer);
    done(of_alice.set_contents("three", None)).await;
    assert_eq!(read(&of_bob).await, "three", "through the other upper proxy by now");
    let refused = timeout(DEADLINE, of_bob.try_acquire(LockMode::Exclusive)).await.unwrap();
    assert_eq!(refused.unwrap_err().code, ErrorCode::LockHeld);
    done(bob.check_sequencer(&sequencer)).await;
    assert_eq!((alice.session_id(), alice.is_over()), (session, false));
    of_alice.clear_sequencer();
    done(of_alice.release()).await;
    done(of_bob.acquire(LockMode::Exclusive)).await;

    alice.close().await;
    bob.close().await;
}

#[tokio::test]
async fn a_system_with_upper_proxies_serves_and_shows_them() {
    let small = ["--cells", "2", "--replicas", "1", "--proxies", "2", "--upper-proxies", "1"];
    let dev = Dev::start(&[&small[..], &["--partition", "/ls/dev/logs=b"]].concat()).await;
    assert_eq!(dev.connect.len(), 2, "clients connect to the lower ones");

    dev.run("put /ls/dev/f v").await.ok();
    dev.run("mkdir /ls/dev/logs").await.refused("AlreadyExists");
    dev.run("put /ls/dev/logs/f w").await.ok();
    for address in &dev.connect {
        assert_eq!(dev.run(&format!("cat --connect {address} /ls/dev/logs/f")).await.text(), "w");
    }

    let status = dev.run("status --json").await.json();
    let layers: Vec<_> = proxies(&status).iter().map(|proxy| proxy["layer"].as_u64().unwrap()).collect();
    assert_eq!(layers.iter().filter(|layer| **layer == 2).count(), 2, "{status}");
    assert_eq!(layers.len(), 3, "{status}");
    for cell in status["cells"].as_array().unwrap() {
        assert_eq!(cell["sessions"], 1, "the upper one's alone: {cell}");
    }
    let metrics = dev.admin_page("/metrics").await;
    assert!(
        metrics.contains("hasp_proxy_upstream_sessions{address=") && metrics.contains("layer=\"2\"} 1\n")
    );
    dev.stop("TERM").await;
}

async fn status(address: &str) -> Value {
    let output = hasp().args(["status", "--json", "--connect", address]).output();
    let output = timeout(DEADLINE, output).await.unwrap().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn proxies(status: &Value) -> &[Value] {
    status["proxies"].as_array().unwrap()
}

fn proxy<'a>(status: &'a Value, address: &str) -> &'a Value {
    let found = proxies(status).iter().find(|proxy| proxy["address"] == address);
    found.unwrap_or_else(|| panic!("no {address} in {status}"))
}

fn sessions(status: &Value, address: &str) -> u64 {
    proxy(status, address)["sessions"].as_u64().unwrap()
}

/// All of them are found from any.
fn the_layers_are_shown(status: &Value, upper: &[OneProxy], lower: &[OneProxy]) {
    assert_eq!(proxies(status).len(), upper.len() + lower.len(), "{status}");
    for host in upper {
        let shown = proxy(status, &host.address);
        assert_eq!((&shown["layer"], &shown["upstream"]), (&json!(1), &json!([])), "{status}");
    }
    let above: Vec<_> = upper.iter().map(|proxy| &proxy.address).collect();
    for host in lower {
        let shown = proxy(status, &host.address);
        assert_eq!((&shown["layer"], &shown["upstream"]), (&json!(2), &json!(above)), "{status}");
        assert_eq!(shown["upstream_sessions"], 1, "{status}");
    }
    assert_eq!(status["cells"][0]["sessions"], 2, "of the upper ones alone: {status}");
}

/// Which of the lower ones have their session with this upper one.
async fn behind(env: &Env, upper: &OneProxy, lower: &[OneProxy]) -> Vec<usize> {
    use hasp_proto::wire::admin::v1::{StatusRequest, status_reply::Server};
    use hasp_rt::rpc::{Profile, client::dial};

    let connection = dial(env, &upper.address, &Profile::clients(), DEADLINE).await.unwrap();
    let reply = connection.admin().status(StatusRequest::default()).await.unwrap().into_inner();
    let Some(Server::Host(host)) = reply.server else { panic!("a proxy") };
    let is_behind = |place: &usize| host.proxies.contains(&lower[*place].address);
    (0..lower.len()).filter(is_behind).collect()
}

/// What the one of alice's has read is read by bob from the cache of the upper one, and by others of hers from hers.
async fn both_layers_answer_from_their_caches(
    env: &Env,
    upper: &OneProxy,
    lower: &OneProxy,
    of_bob: &Handle,
) {
    let before = hits(env, upper).await;
    assert_eq!(read(of_bob).await, "one");
    assert!(hits(env, upper).await > before, "bob's proxy has read it at the upper one");

    let before = hits(env, lower).await;
    let carol = Client::connect(ConnectOptions::new([&lower.address]), env).await.unwrap();
    let of_carol = carol.open(FILE, OpenOptions::read()).await.unwrap().handle;
    assert_eq!(read(&of_carol).await, "one");
    assert!(hits(env, lower).await > before, "carol has read it at her proxy");
    carol.close().await;
}

async fn hits(env: &Env, proxy: &OneProxy) -> u64 {
    let mut io = env.transport.connect(&proxy.admin).await.unwrap();
    io.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    timeout(DEADLINE, io.read_to_string(&mut page)).await.unwrap().unwrap();
    let count = page.lines().find_map(|line| line.strip_prefix("hasp_cache_hits_total "));
    count.unwrap_or_else(|| panic!("no hits in {page}")).parse().unwrap()
}

async fn done<T>(call: impl Future<Output = Result<T, hasp_client::CallError>>) -> T {
    timeout(DEADLINE, call).await.unwrap().unwrap()
}

async fn read(handle: &Handle) -> String {
    String::from_utf8(done(handle.get_contents_and_stat()).await.contents.to_vec()).unwrap()
}
