//! Compiles the message schemas to Rust types, without a protoc binary.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    let files = protox::compile(
        [
            "hasp/v1/node.proto",
            "hasp/v1/request.proto",
            "hasp/v1/session.proto",
            "hasp/tier/v1/tier.proto",
            "hasp/admin/v1/admin.proto",
            "hasp/log/v1/log.proto",
            "hasp/log/v1/snapshot.proto",
        ],
        ["schema"],
    )?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(files)?;
    Ok(())
}
