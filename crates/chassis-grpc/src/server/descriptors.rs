//! What encoded descriptors say: the names of services, and reflection.

use chassis_core::{Error, Result};
use prost::Message;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// The part of `google.protobuf.FileDescriptorSet` that names services. The rest
/// is skipped when it is read.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, optional, tag = "2")]
    package: Option<String>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
}

/// The full names of all services, such as `greeter.v1.Greeter`.
pub(super) fn services(sets: &[&[u8]]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for set in sets {
        let set = FileSet::decode(*set).map_err(malformed)?;
        for file in set.file {
            let package = file.package.unwrap_or_default();
            for service in file.service {
                let name = service.name.unwrap_or_default();
                names.push(match package.as_str() {
                    "" => name,
                    package => format!("{package}.{name}"),
                });
            }
        }
    }
    Ok(names)
}

/// The reflection service over all descriptors, and those of health.
pub(super) fn reflection(
    sets: &[&'static [u8]],
) -> Result<ServerReflectionServer<impl ServerReflection>> {
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for set in sets {
        builder = builder.register_encoded_file_descriptor_set(set);
    }
    builder.build_v1().map_err(malformed)
}

fn malformed(error: impl Into<chassis_core::BoxError>) -> Error {
    Error::failed_precondition(
        "INVALID_DESCRIPTOR",
        "what was given to Server::reflection is not an encoded FileDescriptorSet",
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_their_full_names() {
        let names = services(&[tonic_health::pb::FILE_DESCRIPTOR_SET]).unwrap();
        assert_eq!(names, ["grpc.health.v1.Health"]);
        assert_eq!(services(&[b"\xff"]).unwrap_err().reason(), "INVALID_DESCRIPTOR");
    }
}
