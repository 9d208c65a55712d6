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
//! Nothing is decided here: the machines of `hasp-proto` and `hasp-router` do that. This crate gives
//! them bytes, time and callers.

mod client;
mod connect;
mod core;
mod engine;
mod error;
mod events;
mod handle;
mod open;
mod timers;

pub use client::Client;
pub use connect::{ConnectError, ConnectOptions, Service, Tried};
pub use error::CallError;
pub use events::{Events, SessionEvent};
pub use handle::{Acquired, Children, ContentsAndStat, Done, Handle, Opened, Stated, Written};
pub use open::{IntoName, OpenOptions};
pub use timers::Timers;

pub use hasp_proto::error::ErrorCode;
pub use hasp_proto::id::{CellName, Epoch, Generation, Instance, SessionId};
pub use hasp_proto::limits::{CONTENTS_BYTES_MAX, LOCK_DELAY_MAX};
pub use hasp_proto::name::{Name, NameError};
pub use hasp_proto::node::{AclNames, Child, LockMode, NodeKind, Stat};
pub use hasp_proto::position::Position;
pub use hasp_proto::request::{Create, Use};
pub use hasp_router::links::Connections;
pub use hasp_rt::env::Env;
