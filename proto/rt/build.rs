//! Generates the gRPC stubs. The messages come from `hasp-proto`; only clients and servers are made here, and the
//! description of them all that servers show to tools.

use prost::Message as _;

#[allow(clippy::disallowed_methods, reason = "a build script writes its own output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../schema");
    let files = protox::compile(["hasp/v1/session.proto", "hasp/admin/v1/admin.proto"], ["../schema"])?;
    let mut described = files.clone();
    for file in &mut described.file {
        file.source_code_info = None;
    }
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("described.bin"), described.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".hasp.v1", "::hasp_proto::wire::v1")
        .extern_path(".hasp.tier.v1", "::hasp_proto::wire::tier::v1")
        .extern_path(".hasp.admin.v1", "::hasp_proto::wire::admin::v1")
        .codec_path("crate::rpc::codec::LeanCodec")
        .compile_fds(files)?;
    Ok(())
}
