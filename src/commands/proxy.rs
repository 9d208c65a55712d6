//! `hasp proxy`: one host in front of the cells for many clients.

use hasp_proto::lease::LeaseTerms;
use hasp_proxy::{Proxy, ProxyConfig};

use super::router::HostArgs;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::serve::{self, Signals};

/// Options of `hasp proxy`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    host: HostArgs,
}

impl Args {
    /// Worker threads, if it matters.
    pub const fn threads(&self) -> Option<std::num::NonZeroUsize> {
        self.host.threads
    }
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match serve(args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn serve(args: Args, ctx: &Context) -> Result<Exit, Failure> {
    let mut signals = Signals::watch_with(args.host.stop)?;
    let host = args.host.read()?;
    let config = ProxyConfig {
        listen: host.listen,
        advertise: host.advertise,
        map: host.map,
        upstream: host.upstream,
        admin: host.admin,
        terms: LeaseTerms::default(),
    };
    let telemetry = serve::telemetry("hasp-proxy", &host.trace)?;
    serve::warn_of_declared_principals();
    let proxy = Proxy::start(config, &ctx.env).await.map_err(serve::cannot_start)?;
    let exit = tokio::select! {
        exit = serve::until_stopped(&mut signals, &ctx.env, std::future::pending()) => exit,
        () = async {
            proxy.ready().await;
            serve::say_ready(&[proxy.local_address().to_owned()], proxy.admin_address());
            std::future::pending().await
        } => Exit::Done,
    };
    if let Err(unfinished) = proxy.shutdown().await {
        tracing::warn!(%unfinished, "stops without them");
    }
    telemetry.shutdown().await;
    Ok(exit)
}
