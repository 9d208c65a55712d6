//! The generated wire and log messages, one module per protobuf package, and nothing else.
//!
//! Nothing outside [`crate::convert`] should reason about these types: they are optional
//! everywhere, the domain types are not.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

/// `hasp.v1`: what clients and hosts say to one another.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/hasp.v1.rs"));
}

/// What only proxies and routers may say.
pub mod tier {
    /// `hasp.tier.v1`.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/hasp.tier.v1.rs"));
    }
}

/// For operators.
pub mod admin {
    /// `hasp.admin.v1`.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/hasp.admin.v1.rs"));
    }
}

/// Entries of a cell's replicated log.
pub mod log {
    /// `hasp.log.v1`.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/hasp.log.v1.rs"));
    }
}
