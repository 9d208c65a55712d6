//! Logs, traces and metrics of a process: set up once by `main`, written everywhere, decided nowhere.
//!
//! Metrics are a value, not a global: a process that runs many servers has a [`Metrics`] for each.
//! Names and labels never carry node names or client ids.

pub mod trace;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use prometheus_client::collector::Collector;
use prometheus_client::registry::{Metric, Registry, Unit};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry as Subscriber};

/// What is logged without `HASP_LOG`.
const LOG_DEFAULT: &str = "info,openraft=error,chunked_wal=warn,raft_log=warn";

/// How long a collector may take at the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What to log, and where to send traces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which lines to log, in the language of `tracing`'s filters.
    pub log: String,
    /// How they look.
    pub format: LogFormat,
    /// Where traces go, if anywhere.
    pub traces: Option<Traces>,
    /// The name that traces go under.
    pub service: String,
}

/// What to send to a collector of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Where it takes OTLP over gRPC, such as `http://127.0.0.1:4317`.
    pub otlp: String,
    /// Of the traces that begin here, which part is kept: 0 to 1. Those that others began are kept if they kept them.
    pub ratio: f64,
}

impl Settings {
    /// Logs as `HASP_LOG` and `HASP_LOG_FORMAT` (`json`) say, and these traces. For `main` only.
    pub fn from_environment(service: &str, traces: Option<Traces>) -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_json = set("HASP_LOG_FORMAT").is_some_and(|format| format == "json");
        Self {
            log: set("HASP_LOG").unwrap_or_else(|| LOG_DEFAULT.to_owned()),
            format: if is_json { LogFormat::Json } else { LogFormat::Text },
            traces,
            service: service.to_owned(),
        }
    }
}

/// Why telemetry could not be set up. The operator corrects the setting.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("HASP_LOG does not parse")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The collector's address is none.
    #[error("otlp is no address of a collector")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Somebody set it up before in this process.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

/// Telemetry that is running. Call [`shutdown`](Self::shutdown) at the end of `main`.
#[must_use = "traces under way are lost without a shutdown"]
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Logs to standard error, and exports traces if told where to. Once per process, inside a
    /// runtime if traces are exported.
    ///
    /// # Errors
    /// If a setting is wrong.
    pub fn start(settings: &Settings) -> Result<Self, TelemetryError> {
        let filter = EnvFilter::try_new(&settings.log)?;
        let traces = settings.traces.as_ref().map(|traces| exporter(traces, &settings.service));
        let traces = traces.transpose()?;
        let export = traces.as_ref().map(|provider| {
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("hasp"));
            let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
            layer.with_filter(Targets::new().with_target(trace::TARGET, Level::TRACE))
        });
        let lines = lines(settings.format).with_filter(filter);
        tracing_subscriber::registry().with(lines).with(export).try_init()?;
        Ok(Self { traces })
    }

    /// Sends what is still to be sent, if somebody takes it in a moment.
    pub async fn shutdown(self) {
        let Some(provider) = self.traces else { return };
        #[allow(clippy::disallowed_methods, reason = "it waits for what this runtime sends; for `main` only")]
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!(?ended, "traces were lost");
        }
    }
}

fn lines(format: LogFormat) -> Box<dyn Layer<Subscriber> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            lines.with_ansi(std::io::stderr().is_terminal()).boxed()
        }
        LogFormat::Json => lines.json().boxed(),
    }
}

fn exporter(traces: &Traces, service: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&traces.otlp).build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.ratio)));
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_sampler(sampler);
    Ok(provider.with_resource(resource).build())
}

/// The metrics of one server. A clone is the same registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// No metrics yet; all that come are named `hasp_...`.
    pub fn new() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("hasp"))) }
    }

    /// Adds a metric and gives it back, to be counted on by whoever owns it.
    ///
    /// Counters are shown with `_total` at the end of their name.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| registry.register(name, help, metric.clone()));
        metric
    }

    /// Adds a metric in a base unit, which is put at the end of its name, and gives it back.
    pub fn register_in<M: Metric + Clone>(&self, unit: Unit, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| registry.register_with_unit(name, help, unit, metric.clone()));
        metric
    }

    /// Adds numbers that are looked up when somebody asks for them.
    pub fn register_collector(&self, collector: Box<dyn Collector>) {
        self.with(|registry| registry.register_collector(collector));
    }

    /// All of them as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let encoded = self.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry));
        encoded.expect("writing to a string does not fail");
        text
    }

    fn with<R>(&self, work: impl FnOnce(&mut Registry) -> R) -> R {
        work(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn servers_of_one_process_count_apart() {
        let (first, second) = (Metrics::new(), Metrics::new());
        let counter = first.register("keepalives", "KeepAlives answered", <Counter>::default());
        second.register("keepalives", "KeepAlives answered", <Counter>::default());

        counter.inc_by(3);

        assert!(first.encode().contains("hasp_keepalives_total 3\n"), "{}", first.encode());
        assert!(second.encode().contains("hasp_keepalives_total 0\n"));
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused() {
        let settings = Settings {
            log: "hasp=nonsense=1".to_owned(),
            format: LogFormat::Text,
            traces: None,
            service: "test".to_owned(),
        };

        assert!(matches!(Telemetry::start(&settings), Err(TelemetryError::Filter(_))));
    }

    #[tokio::test]
    async fn telemetry_starts_once_in_a_process() {
        let settings = Settings {
            log: "warn".to_owned(),
            format: LogFormat::Json,
            traces: Some(Traces { otlp: "http://127.0.0.1:1".to_owned(), ratio: 1.0 }),
            service: "test".to_owned(),
        };

        let telemetry = Telemetry::start(&settings).unwrap();
        let again = Telemetry::start(&settings);

        assert!(matches!(again, Err(TelemetryError::Twice(_))));
        drop(telemetry);
    }
}
