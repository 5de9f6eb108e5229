//! Compiles the .proto files with a compiler in Rust, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/control.proto",
        "proto/copy.proto",
        "proto/repair.proto",
        "proto/stream.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".holdfast.stream")
        .bytes(".holdfast.copy")
        .bytes(".holdfast.repair")
        .compile_fds(descriptors)?;
    Ok(())
}
