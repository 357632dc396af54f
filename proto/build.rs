//! Compiles the `.proto` files with protox: no system protoc is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 3] = [
        "rossby/v1/mailbox.proto",
        "rossby/v1/peer.proto",
        "rossby/v1/admin.proto",
    ];
    const ROOT: &str = "proto";
    for file in FILES {
        println!("cargo:rerun-if-changed={ROOT}/{file}");
    }
    let descriptors = protox::compile(FILES, [ROOT])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Reflection serves only what is compiled in here.
    std::fs::write(
        out.join("rossby.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
