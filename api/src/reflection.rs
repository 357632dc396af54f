//! gRPC reflection: tools may ask what the public service looks like, and learn of no other.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use rossby_proto::v1;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder, Error};

/// The file that declares the public service.
const PUBLIC_FILE: &str = "rossby/v1/mailbox.proto";

/// The reflection service, over the public service only.
///
/// # Errors
/// If the compiled descriptors are not what they should be.
pub fn service() -> Result<ServerReflectionServer<impl ServerReflection>, Error> {
    let mut descriptors = FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET)?;
    descriptors.file.retain(|file| file.name() == PUBLIC_FILE);
    Builder::configure()
        .register_file_descriptor_set(descriptors)
        .build_v1()
}
