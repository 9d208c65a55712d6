//! What every command is given, and the options that all client commands share.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use hasp_client::{CallError, Client, ConnectOptions, Name};
use hasp_proto::hosts::is_address;
use hasp_rt::env::Env;
use hasp_rt::telemetry::{Settings, Telemetry, TelemetryError, Traces};

use crate::exit::Failure;

/// How long the end of a session is waited for: the service has it, this process need not see it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The world that a command runs in.
pub struct Context {
    /// Clock, network, disk, randomness, tasks.
    pub env: Env,
    telemetry: OnceLock<Telemetry>,
}

impl Context {
    /// Over that world.
    pub const fn new(env: Env) -> Self {
        Self { env, telemetry: OnceLock::new() }
    }
}

/// Options of every command that talks to a service.
#[derive(clap::Args, Clone, Debug)]
pub struct ConnectArgs {
    /// Addresses of proxies, routers or replicas, as many as there are
    #[arg(
        long,
        env = "HASP_CONNECT",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        required = true,
        value_parser = parse_address
    )]
    pub connect: Vec<String>,

    /// How long to try to reach the service
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// As whom to act; the service takes the name on trust
    #[arg(long, env = "HASP_PRINCIPAL", value_name = "NAME", default_value = "anonymous")]
    pub principal: String,

    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Where requests are followed to. Nowhere, unless somebody says so.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Send traces there, a collector that takes OTLP over gRPC
    #[arg(long, env = "HASP_OTLP", value_name = "http://HOST:PORT", value_parser = parse_collector)]
    pub otlp: Option<String>,

    /// Which part of the traces that begin here is kept [default: 1]
    #[arg(long, env = "HASP_TRACE_RATIO", value_name = "0..1", value_parser = parse_ratio)]
    pub trace_ratio: Option<f64>,
}

impl TraceArgs {
    /// These, and what a file says where they say nothing.
    ///
    /// # Errors
    /// Wrong usage: what the file says makes no sense.
    pub fn over(self, otlp: Option<String>, ratio: Option<f64>) -> Result<Self, Failure> {
        let otlp = otlp.map(|text| parse_collector(&text)).transpose().map_err(Failure::Usage)?;
        let ratio = ratio.map(check_ratio).transpose().map_err(Failure::Usage)?;
        Ok(Self { otlp: self.otlp.or(otlp), trace_ratio: self.trace_ratio.or(ratio) })
    }

    /// What to send where, if anything.
    pub fn traces(&self) -> Option<Traces> {
        let ratio = self.trace_ratio.unwrap_or(1.0);
        self.otlp.clone().map(|otlp| Traces { otlp, ratio })
    }
}

impl Context {
    /// Follows what this command asks for, if it was told to.
    ///
    /// # Errors
    /// The collector's address is none.
    fn follow(&self, args: &TraceArgs) -> Result<(), Failure> {
        let traces = args.traces();
        if traces.is_none() || self.telemetry.get().is_some() {
            return Ok(());
        }
        let telemetry = serve_client(traces).map_err(|error| Failure::Usage(error.to_string()))?;
        // Nobody else has set it since.
        let _ = self.telemetry.set(telemetry);
        Ok(())
    }

    /// The command is done: sends what is still to be sent.
    pub async fn end(self) {
        if let Some(telemetry) = self.telemetry.into_inner() {
            telemetry.shutdown().await;
        }
    }
}

/// A client command writes no log.
fn serve_client(traces: Option<Traces>) -> Result<Telemetry, TelemetryError> {
    let settings = Settings { log: "off".to_owned(), ..Settings::from_environment("hasp-client", traces) };
    Telemetry::start(&settings)
}

impl ConnectArgs {
    /// Opens a session.
    ///
    /// # Errors
    /// If nobody answers in time, or whoever does refuses.
    pub async fn client(&self, ctx: &Context) -> Result<Client, Failure> {
        ctx.follow(&self.trace)?;
        let options = ConnectOptions {
            principal: self.principal.clone(),
            timeout: self.timeout,
            ..ConnectOptions::new(self.connect.clone())
        };
        Ok(Client::connect(options, &ctx.env).await?)
    }

    /// Waits for one call, as long as for the service to be reached.
    ///
    /// # Errors
    /// What the call was refused with; unreachable if the answer did not come in time.
    pub async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>> + Send,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Failure::Unreachable(format!(
                "no answer within {}; whether a change was made is unknown",
                humantime::format_duration(self.timeout)
            ))),
        }
    }

    /// Runs `work` with a session, and ends the session whatever came of it.
    ///
    /// # Errors
    /// Those of the connection and of `work`.
    pub async fn with_client<T>(
        &self,
        ctx: &Context,
        work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let client = self.client(ctx).await?;
        let result = work(&client).await;
        close(&client).await;
        result
    }
}

/// Ends a session, without insisting.
pub async fn close(client: &Client) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
}

/// Checks a name before anything is sent.
///
/// # Errors
/// Wrong usage, with what is wrong with it.
pub fn parse_name(text: &str) -> Result<Name, Failure> {
    Name::parse(text).map_err(|error| Failure::Usage(format!("InvalidName: {text:?}: {error}")))
}

/// Checks that a text is `HOST:PORT`.
///
/// # Errors
/// What is expected.
pub fn parse_address(text: &str) -> Result<String, String> {
    if is_address(text) {
        Ok(text.to_owned())
    } else {
        Err("an address is HOST:PORT, as in 127.0.0.1:7000".into())
    }
}

fn parse_collector(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let good = address.is_some_and(is_address);
    if good { Ok(text.to_owned()) } else { Err("a collector is http://HOST:PORT".into()) }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    check_ratio(text.parse().map_err(|_| "a ratio is a number from 0 to 1".to_owned())?)
}

fn check_ratio(ratio: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("a ratio is a number from 0 to 1".into()) }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("a timeout is longer than zero".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["127.0.0.1:7000", "localhost:1", "[::1]:7000"] {
            assert!(parse_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost",
            ":7000",
            "localhost:",
            "localhost:0",
            "localhost:70000",
            "localhost:x",
            "::1:7000",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_timeout_is_a_positive_duration() {
        assert_eq!(parse_timeout("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_timeout("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "0s", "10", "-1s", "soon"] {
            assert!(parse_timeout(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_has_scheme_host_and_port_and_a_ratio_is_a_part() {
        assert!(parse_collector("http://127.0.0.1:4317").is_ok());
        assert!(parse_collector("http://localhost:4317/").is_ok());
        for bad in ["", "127.0.0.1:4317", "http://localhost", "https://localhost:4317", "http://:1"] {
            assert!(parse_collector(bad).is_err(), "{bad}");
        }
        for (good, ratio) in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)] {
            assert_eq!(parse_ratio(good), Ok(ratio));
        }
        for bad in ["", "-0.1", "1.1", "NaN", "all"] {
            assert!(parse_ratio(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_file_says_of_traces_counts_where_no_flag_says_anything() {
        let flag = TraceArgs { otlp: Some("http://a:1".into()), trace_ratio: None };

        let both = flag.over(Some("http://b:1".into()), Some(0.5)).expect("good");

        assert_eq!(both.traces(), Some(Traces { otlp: "http://a:1".into(), ratio: 0.5 }));
        assert_eq!(TraceArgs::default().over(None, Some(0.5)).expect("good").traces(), None);
        assert!(TraceArgs::default().over(Some("b:1".into()), None).is_err());
        assert!(TraceArgs::default().over(None, Some(2.0)).is_err());
    }

    #[test]
    fn a_bad_name_is_wrong_usage_and_says_why() {
        let failure = parse_name("/etc/passwd").expect_err("bad");

        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with("InvalidName: \"/etc/passwd\": a name begins with /ls/"));
    }
}
