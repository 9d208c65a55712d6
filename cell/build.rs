//! Compiles the replicas' own protocol (`hasp.raft.v1`). The client protocols are compiled by `hasp-rt`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/schema");
    println!("cargo::rerun-if-changed={}", schema.join("hasp/raft").display());

    let descriptors = protox::compile(["hasp/raft/v1/raft.proto"], [&schema])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
