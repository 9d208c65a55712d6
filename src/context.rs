//! What every command is given, and the options that all client commands share.

use std::future::Future;
use std::time::Duration;

use hasp_client::{CallError, Client, ConnectOptions, Name};
use hasp_rt::env::Env;

use crate::exit::Failure;

/// How long the end of a session is waited for: the service has it, this process need not see it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The world that a command runs in.
pub struct Context {
    /// Clock, network, disk, randomness, tasks.
    pub env: Env,
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
}

impl ConnectArgs {
    /// Opens a session.
    ///
    /// # Errors
    /// If nobody answers in time, or whoever does refuses.
    pub async fn client(&self, ctx: &Context) -> Result<Client, Failure> {
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

/// Checks that a text looks like `HOST:PORT`.
///
/// # Errors
/// What is expected.
pub fn parse_address(text: &str) -> Result<String, String> {
    let good = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if good { Ok(text.to_owned()) } else { Err("an address is HOST:PORT, as in 127.0.0.1:7000".into()) }
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
        for bad in ["", "localhost", ":7000", "localhost:", "localhost:0", "localhost:70000", "localhost:x"] {
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
    fn a_bad_name_is_wrong_usage_and_says_why() {
        let failure = parse_name("/etc/passwd").expect_err("bad");

        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with("InvalidName: \"/etc/passwd\": a name begins with /ls/"));
    }
}
