//! One command is followed from the client through the proxy to the master and its log: what a collector of traces
//! hears of it, and what it does not hear.
#![allow(clippy::disallowed_methods, reason = "real processes and ports are the point")]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::server::{Dispatch, serve};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// For a whole system to start or stop on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let of_processes = request.into_inner().resource_spans.into_iter();
        let spans = of_processes.flat_map(|process| process.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().expect("not poisoned").extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one; where it is.
    async fn start(env: &Env) -> (Self, String) {
        let collector = Self::default();
        let listener = env.transport.listen("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_address());
        let dispatch = Dispatch::new().with(TraceServiceServer::new(collector.clone()));
        serve(&env.tasks, listener, dispatch, Profile::clients());
        (collector, url)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().expect("not poisoned").clone()
    }
}

fn hasp(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("hasp"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.env_remove("HASP_OTLP").env_remove("HASP_TRACE_RATIO");
    command
}

/// A cell of one and a proxy; where the proxy is.
async fn system(arguments: &[&str]) -> (Child, String) {
    let few = ["dev", "--cells", "1", "--replicas", "1", "--proxies", "1"];
    server(&[&few[..], arguments].concat()).await
}

/// A server that is ready, and where it is.
async fn server(arguments: &[&str]) -> (Child, String) {
    let mut child = hasp(arguments).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.expect("in time").expect("reads").expect("a line");
    let connect = line.split(' ').find_map(|word| word.strip_prefix("connect=")).expect("where it is");
    (child, connect.to_owned())
}

async fn put(connect: &str, arguments: &[&str]) {
    let put = ["put", "--connect", connect, "/ls/dev/followed", "value"];
    let status = timeout(DEADLINE, hasp(&[&put[..], arguments].concat()).status()).await.expect("in time");
    assert!(status.expect("runs").success());
}

/// Stops it, so that it sends what it has.
async fn stop(mut child: Child) {
    let id = child.id().expect("it runs");
    kill(Pid::from_raw(id.try_into().expect("a process")), Signal::SIGTERM).expect("it runs");
    assert!(timeout(DEADLINE, child.wait()).await.expect("in time").expect("ends").success());
}

fn op_of(span: &Span) -> String {
    let op = span.attributes.iter().find(|attribute| attribute.key == "op");
    match op.and_then(|op| op.value.clone()).and_then(|value| value.value) {
        Some(Value::StringValue(op)) => op,
        other => panic!("what is done: {other:?}"),
    }
}

#[tokio::test]
async fn a_put_is_followed_from_the_client_through_the_proxy_to_the_log() {
    let env = Env::system().expect("random numbers");
    let (collector, url) = Collector::start(&env).await;
    let (system, connect) = system(&["--otlp", &url]).await;

    put(&connect, &["--otlp", &url]).await;
    stop(system).await;

    let spans = collector.spans();
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span)).collect();
    let commits: Vec<_> = spans.iter().filter(|span| span.name == "commit").collect();
    assert!(!commits.is_empty(), "{spans:#?}");
    let mut ops = Vec::new();
    for commit in commits {
        let master = by_id[&commit.parent_span_id];
        let proxy = by_id[&master.parent_span_id];
        let client = by_id[&proxy.parent_span_id];
        let names = [client, proxy, master].map(|span| &*span.name);
        assert_eq!(names, ["client", "proxy", "master"]);
        assert!(client.parent_span_id.is_empty(), "the trace begins there");
        for (span, asked) in [(commit, master), (master, proxy), (proxy, client)] {
            assert_eq!(span.trace_id, client.trace_id);
            // One machine, one clock: who was asked begins and ends in between.
            assert!(asked.start_time_unix_nano <= span.start_time_unix_nano, "{asked:?} {span:?}");
            assert!(span.end_time_unix_nano <= asked.end_time_unix_nano, "{asked:?} {span:?}");
        }
        assert_eq!((op_of(client), op_of(proxy)), (op_of(master), op_of(client)));
        ops.push(op_of(client));
    }
    assert!(ops.contains(&"open".to_owned()), "that created the file: {ops:?}");
}

#[tokio::test]
async fn processes_that_are_told_by_their_files_are_steps_of_one_trace() {
    let env = Env::system().expect("random numbers");
    let (collector, url) = Collector::start(&env).await;
    let dir = tempfile::tempdir().expect("a directory");
    let free = env.transport.listen("127.0.0.1:0").await.expect("a port");
    let cell_address = free.local_address();
    drop(free);
    let map = format!(
        "otlp = \"{url}\"\nnamespace = \"dev\"\n[[rules]]\nprefix = \"/ls/dev\"\ncell = \"a\"\n\
         [cells]\na = [\"{cell_address}\"]\n"
    );
    let file = |name: &str, head: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{head}\n{map}")).expect("writes");
        path.to_str().expect("text").to_owned()
    };
    let data = format!("cell = \"a\"\nid = 1\ndir = \"{}\"", dir.path().join("data").display());
    let (cell, _) = server(&["cell", "--config", &file("cell.toml", &data)]).await;
    let listen = "listen = \"127.0.0.1:0\"\ntrace_ratio = 0.0";
    let (router, connect) = server(&["router", "--config", &file("router.toml", listen)]).await;

    put(&connect, &["--otlp", &url]).await;
    stop(router).await;
    stop(cell).await;

    let spans = collector.spans();
    let asked = |by: &Span| spans.iter().find(|span| span.span_id == by.parent_span_id);
    let commit = spans.iter().find(|span| span.name == "commit").expect("it was written");
    let way: Vec<_> = std::iter::successors(Some(commit), |step| asked(step)).collect();
    let names: Vec<_> = way.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["commit", "master", "router", "client"]);
    assert!(way.iter().all(|step| step.trace_id == commit.trace_id));
}

#[tokio::test]
async fn who_is_not_followed_is_not_and_a_server_begins_traces_only_as_often_as_it_is_told() {
    let env = Env::system().expect("random numbers");
    let (collector, url) = Collector::start(&env).await;

    let (off, connect) = system(&[]).await;
    put(&connect, &["--otlp", &url]).await;
    stop(off).await;
    let of_client = collector.spans();
    assert!(!of_client.is_empty() && of_client.iter().all(|span| span.name == "client"), "{of_client:?}");

    let (never, connect) = system(&["--otlp", &url, "--trace-ratio", "0"]).await;
    put(&connect, &[]).await;
    put(&connect, &["--otlp", &url, "--trace-ratio", "0"]).await;
    stop(never).await;
    assert_eq!(collector.spans().len(), of_client.len());

    let (always, connect) = system(&["--otlp", &url]).await;
    put(&connect, &["--otlp", &url, "--trace-ratio", "0"]).await;
    stop(always).await;
    let begun = collector.spans().split_off(of_client.len());
    assert!(begun.iter().all(|span| op_of(span) == "close"), "the client has said no: {begun:?}");
    let known = of_client.len() + begun.len();

    let (always, connect) = system(&["--otlp", &url]).await;
    put(&connect, &[]).await;
    stop(always).await;
    let spans = collector.spans().split_off(known);
    let begun: Vec<_> = spans.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    assert!(
        begun.iter().any(|span| op_of(span) == "open") && begun.iter().all(|span| span.name == "proxy"),
        "{begun:?}"
    );
}
