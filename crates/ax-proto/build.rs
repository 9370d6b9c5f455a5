//! Generates the wire types from `proto/`, without an installed protoc.

use std::error::Error;
use std::path::{Path, PathBuf};

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
    compile_ax1(&out)
}

/// The wire of another system, whose clients import its files under their own paths.
fn compile_ax1(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut set = protox::compile(["proto/ax.proto"], ["proto/ax1"])?;
    std::fs::write(out.join("ax1-descriptor.bin"), prost::Message::encode_to_vec(&set))?;
    // Peers send either a message or a text, which the bytes of both are told apart by.
    let fields = set
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
        .filter(|message| message.name() == "HarnessEnd")
        .flat_map(|message| &mut message.field)
        .filter(|field| field.name() == "error");
    for field in fields {
        field.set_type(prost_types::field_descriptor_proto::Type::Bytes);
        field.type_name = None;
    }
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
