//! Turns the protos into Rust without `protoc`.
//!
//! protox is a protobuf compiler in Rust, so that a build needs nothing but
//! cargo and a C compiler. Each package is compiled on its own: a server that
//! offers reflection then shows its own package and no other.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const SCHEMA: &str = "#[derive(utoipa::ToSchema)]";
const PACKAGES: [&str; 4] = ["catalog", "inventory", "payment", "ordering"];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=proto");
    for package in PACKAGES {
        compile(package, &out)?;
    }
    Ok(())
}

fn compile(package: &str, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file(format!("{package}/v1.proto"))?;
    fs::write(out.join(format!("{package}_v1.bin")), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // JSON for the edge, which shows these messages to browsers.
        .message_attribute(".", "#[derive(serde::Serialize)]")
        // The catalogue answers with these as JSON itself, and documents that.
        .message_attribute(".shop.catalog.v1.Product", SCHEMA)
        .message_attribute(".shop.catalog.v1.ListProductsResponse", SCHEMA)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
