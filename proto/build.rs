//! Compiles the contract with protox (no protoc) and keeps the descriptor for reflection.

use std::{env, fs, path::PathBuf};

const FILES: &[&str] = &[
    "tongxing/access/v1/access.proto",
    "tongxing/assignment/v1/assignment.proto",
    "tongxing/error/v1/error_reason.proto",
    "tongxing/evidence/v1/evidence.proto",
    "tongxing/federation/v1/federation.proto",
    "tongxing/province/v1/province.proto",
    "tongxing/recognition/v1/recognition.proto",
    "tongxing/traveler/v1/traveler.proto",
    "tongxing/types/v1/types.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=tongxing");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES)?;
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .include_file("contract.rs")
        // The same type as in every other error's details.
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
