//! Names that stand for several hosts, and for others later.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use hasp_client::{Client, ConnectOptions, Env, OpenOptions};
use hasp_rt::transport::{Io, Listener, Transport};

use crate::host::{Host, Manner};

type Later<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A network with names.
struct Named {
    network: Arc<dyn Transport>,
    names: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Named {
    fn on(env: &mut Env) -> Arc<Self> {
        let named = Arc::new(Self { network: env.transport.clone(), names: Mutex::default() });
        env.transport = named.clone();
        named
    }

    fn stands_for(&self, name: &str, hosts: &[&str]) {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.names.lock().unwrap().insert(name.to_owned(), hosts);
    }

    fn look_up(&self, address: &str) -> Option<Vec<String>> {
        self.names.lock().unwrap().get(address).cloned()
    }
}

impl Transport for Named {
    fn connect<'a>(&'a self, address: &'a str) -> Later<'a, Io> {
        Box::pin(async move {
            let found = self.look_up(address).unwrap_or_else(|| vec![address.to_owned()]);
            self.network.connect(&found[0]).await
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> Later<'a, Box<dyn Listener>> {
        self.network.listen(address)
    }

    fn resolve<'a>(&'a self, address: &'a str) -> Later<'a, Vec<String>> {
        Box::pin(async move {
            self.look_up(address).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn every_host_that_a_name_stands_for_is_tried() {
    let mut env = Env::in_memory(1);
    Named::on(&mut env).stands_for("proxies:1", &["p1:1", "p2:1"]);
    let servers = ["first", "second"].map(|label| env.child(label));
    let first = Host::start_at(&servers[0], Manner::Kind, "p1:1").await;
    let second = Host::start_at(&servers[1], Manner::Kind, "p2:1").await;
    let client =
        Client::connect(ConnectOptions::new(["proxies:1"]), &env.child("client")).await.expect("welcomed");
    let handle = client.open("/ls/dev/f", OpenOptions::read()).await.unwrap().handle;
    let (at, other) = if first.heard().is_empty() { (1, first) } else { (0, second) };

    servers[at].tasks.abort();
    handle.get_stat().await.unwrap();

    assert_eq!(other.heard()[..2], ["resume", "get_stat"]);
    assert!(env.clock.now().as_micros() < 1_000_000, "without jeopardy");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_looked_up_is_tried_as_it_is() {
    let mut env = Env::in_memory(1);
    let _names = Named::on(&mut env);
    let _host = Host::start_at(&env, Manner::Kind, "proxy:1").await;

    let client = Client::connect(ConnectOptions::new(["proxy:1"]), &env.child("client")).await;

    assert!(client.is_ok());
}

#[tokio::test(start_paused = true)]
async fn in_jeopardy_a_name_is_looked_up_again() {
    let mut env = Env::in_memory(1);
    let names = Named::on(&mut env);
    names.stands_for("proxies:1", &["p1:1", "p2:1"]);
    let servers = env.child("servers");
    let _old = Host::start_at(&servers, Manner::Kind, "p1:1").await;
    let client =
        Client::connect(ConnectOptions::new(["proxies:1"]), &env.child("client")).await.expect("welcomed");
    let handle = client.open("/ls/dev/f", OpenOptions::read()).await.unwrap().handle;

    servers.tasks.abort();
    names.stands_for("proxies:1", &["p3:1", "p4:1"]);
    let new = Host::start_at(&env, Manner::Kind, "p4:1").await;
    handle.get_stat().await.unwrap();

    assert_eq!(new.heard()[0], "resume");
    let waited = env.clock.now().as_micros() / 1_000_000;
    assert!((11..=14).contains(&waited), "a lease: {waited}");
}
