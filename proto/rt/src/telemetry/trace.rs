//! Steps of requests on their way, as spans for a collector of traces.
//!
//! Shells begin a step when a request comes to them, pass its context on with the request, and end it with the answer.
//! Without a collector no span is enabled: each question here costs one look at that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hasp_proto::id::RequestNumber;
use hasp_proto::request::Request;
use hasp_proto::server::ConnectionId;
use hasp_proto::trace::TraceContext;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of all spans made here. They are of level `TRACE`, so that logs do not make them.
pub const TARGET: &str = "hasp::trace";

/// Steps that may wait for their answers at one host; what comes beyond that is not followed.
const WAITING_MAX: usize = 65_536;

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The library of an application.
    Client,
    /// A proxy.
    Proxy,
    /// A router.
    Router,
    /// The master of a cell, or a replica that is asked for one.
    Master,
    /// The log of a cell.
    Commit,
}

impl Stage {
    /// Its name among spans, and their kind.
    const fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Client => ("client", "client"),
            Self::Proxy => ("proxy", "server"),
            Self::Router => ("router", "server"),
            Self::Master => ("master", "server"),
            Self::Commit => ("commit", "internal"),
        }
    }

    fn span(self, op: &'static str) -> Option<Span> {
        let (name, kind) = self.shown();
        let span =
            tracing::span!(target: TARGET, Level::TRACE, "step", otel.name = name, otel.kind = kind, op);
        (!span.is_disabled()).then_some(span)
    }
}

/// Something that is being done for a request; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "a step ends when it is dropped"]
pub struct Step {
    _span: Span,
}

/// Begins a trace, or a step of the caller's own span; with what to send along.
pub fn begin(stage: Stage, op: &'static str) -> Option<(Step, TraceContext)> {
    started(stage.span(op)?)
}

/// Begins a step of a trace that somebody else has begun, if that is kept; with what to send along.
pub fn follow(stage: Stage, op: &'static str, trace: &TraceContext) -> Option<(Step, TraceContext)> {
    if !trace.is_sampled() {
        return None;
    }
    let span = stage.span(op)?;
    let (id, step) = (TraceId::from_bytes(trace.trace()), SpanId::from_bytes(trace.step()));
    let asked = SpanContext::new(id, step, TraceFlags::SAMPLED, true, TraceState::NONE);
    // Fails only where nobody exports spans, and then `started` finds no context either.
    let _ = span.set_parent(Context::new().with_remote_span_context(asked));
    started(span)
}

fn started(span: Span) -> Option<(Step, TraceContext)> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let (trace, step) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    let sent = TraceContext::new(trace, step, context.trace_flags().to_u8());
    context.is_valid().then_some((Step { _span: span }, sent))
}

/// Steps of one host that end with an answer.
#[derive(Debug, Default)]
pub struct Waiting {
    count: AtomicUsize,
    steps: Mutex<BTreeMap<(ConnectionId, RequestNumber), Step>>,
}

impl Waiting {
    /// A request came on that connection: begins this host's step, which the request carries from here on. A request
    /// of a client that does not follow it begins a trace here.
    pub fn take_up(&self, stage: Stage, connection: ConnectionId, request: &mut Request) {
        let op = request.op.name();
        let begun = match &request.trace {
            Some(trace) => follow(stage, op, trace),
            None if request.on_behalf.is_none() && !request.op.is_tier_only() => begin(stage, op),
            None => None,
        };
        let Some((step, trace)) = begun else { return };
        let is_kept = trace.is_sampled();
        request.trace = Some(trace);
        let mut steps = self.steps();
        if is_kept && steps.len() < WAITING_MAX {
            steps.insert((connection, request.number), step);
            self.count.store(steps.len(), Ordering::Relaxed);
        }
    }

    /// An answer goes out on that connection.
    pub fn answered(&self, connection: ConnectionId, number: RequestNumber) {
        if self.is_empty() {
            return;
        }
        let mut steps = self.steps();
        let ended = steps.remove(&(connection, number));
        self.count.store(steps.len(), Ordering::Relaxed);
        drop(steps);
        drop(ended);
    }

    /// The connection is gone.
    pub fn disconnected(&self, connection: ConnectionId) {
        if self.is_empty() {
            return;
        }
        let mut steps = self.steps();
        let all = (connection, RequestNumber(0))..=(connection, RequestNumber(u64::MAX));
        let ended: Vec<_> = steps.extract_if(all, |_, _| true).collect();
        self.count.store(steps.len(), Ordering::Relaxed);
        drop(steps);
        drop(ended);
    }

    /// Without a lock: a step that begins at this moment is not the one that ends.
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn steps(&self) -> MutexGuard<'_, BTreeMap<(ConnectionId, RequestNumber), Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
