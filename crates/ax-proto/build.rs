//! Generates the wire types from `proto/`, without an installed protoc.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "agentexecutor/v1/event.proto",
        "agentexecutor/v1/service.proto",
        "agentexecutor/store/v1/state.proto",
    ];
    let set = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let bytes = prost::Message::encode_to_vec(&set);
    std::fs::write(out.join("descriptor.bin"), &bytes)?;
    let mut api = set.clone();
    api.file.retain(|file| file.package() != "agentexecutor.store.v1");
    std::fs::write(out.join("api.bin"), prost::Message::encode_to_vec(&api))?;
    tonic_prost_build::configure().bytes(".agentexecutor.v1.ExportResponse").compile_fds(set)?;
    let mut json = pbjson_build::Builder::new();
    json.register_descriptors(&bytes)?.build(&[".agentexecutor"])?;
    Ok(())
}
