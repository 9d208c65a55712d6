//! Between clients and cells: which cell a request belongs to, the sessions held there, and a host
//! that relays many clients' sessions over few of its own.
//!
//! [`upstream`], [`relay`] and [`ring`] are pure machines and arithmetic; [`links`] and [`service`]
//! move bytes for them and decide nothing.

pub mod links;
pub mod relay;
pub mod ring;
pub mod service;
pub mod upstream;
