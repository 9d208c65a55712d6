//! The library that applications use: open files and directories, read, write, lock.
//!
//! ```no_run
//! use hasp_client::{Client, ConnectOptions, Env, LockMode, OpenOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Env::system()?;
//! let client = Client::connect(ConnectOptions::new(["127.0.0.1:7000"]), &env).await?;
//! let leader = client.open("/ls/dev/leader", OpenOptions::create_file("")).await?.handle;
//! leader.acquire(LockMode::Exclusive).await?;
//! leader.set_contents("me", None).await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is one session (paper §2.8). It survives lost connections, the loss of a proxy and a
//! change of master: calls that were under way are asked again, and take effect at most once. When
//! nobody has answered for a whole lease the session is in *jeopardy*: calls wait, and the
//! application is told by [`Events`]. It then becomes safe again, or expires with all its handles
//! and locks.
//!
//! What was read is kept, and reads are answered with it, until the service says that it is about to
//! change (paper §2.7): a cached read is as strict as one that is asked. Handles that were closed and sessions that
//! nobody uses are kept, or ended, in the same way unseen. A handle that was opened with
//! [events](OpenOptions::events) is [told](Handle::events) what happens to its node. A lock holder
//! proves itself to other services by a [`Sequencer`].
//!
//! Dropping a call's future cancels the call; dropping the last clone of a [`Handle`] closes it.
//!
//! Nothing is decided outside `core`: that and the machines of `hasp-proto` and `hasp-router` do it. The
//! rest of this crate gives them bytes, time and callers.

mod calls;
mod client;
mod connect;
mod core;
mod engine;
mod error;
mod events;
pub mod fence;
mod handle;
mod handle_state;
mod node_events;
mod open;
mod root;
mod sequencer;
mod timers;
mod view;

/// The machine behind a [`Client`], for a simulation that drives it without the shell.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod machine {
    pub use crate::core::{
        ApplicationCore, Brought, Call, CallId, CoreOptions, HandleNumber, Input, OpenHandle, Opening,
        Output, Shown, Used,
    };
}

pub use client::Client;
pub use connect::{ConnectError, ConnectOptions, Service, Tried};
pub use error::CallError;
pub use events::{Events, SessionEvent};
pub use handle::{AclSet, Acquired, Children, ContentsAndStat, Done, Handle, Opened, Stated, Written};
pub use node_events::{HandleEvent, LossCause, NodeEvents};
pub use open::{IntoName, OpenOptions};
pub use root::Root;
pub use sequencer::Sequencer;
pub use timers::Timers;

pub use hasp_proto::error::ErrorCode;
pub use hasp_proto::event::{EventKind, EventMask, NodeEvent};
pub use hasp_proto::id::{CellName, Epoch, Generation, Instance, SessionId};
pub use hasp_proto::limits::{CONTENTS_BYTES_MAX, LOCK_DELAY_MAX};
pub use hasp_proto::name::{Name, NameError};
pub use hasp_proto::node::{AclNames, Child, LockMode, NodeKind, Stat};
pub use hasp_proto::position::Position;
pub use hasp_proto::request::{Create, Use};
pub use hasp_proto::sequencer::NotASequencer;
pub use hasp_router::links::Connections;
pub use hasp_rt::env::Env;
