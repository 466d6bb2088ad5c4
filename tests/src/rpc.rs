//! Calls any RPC of the contract by its name, with an empty message: enough for everything that
//! must be refused before a message is read. What is listed comes from the descriptors, so a new
//! RPC is under test from its first day.

use claviger_proto::DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// One RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `claviger.v1.AgentService`.
    pub service: String,
    /// `Issue`.
    pub name: String,
}

impl Method {
    /// Calls it and waits for the first answer or the refusal.
    pub async fn call(&self, channel: &Channel, metadata: &MetadataMap) -> Result<(), Status> {
        let path = format!("/{}/{}", self.service, self.name);
        let path = PathAndQuery::try_from(path).expect("a path");
        let mut request = Request::new(());
        *request.metadata_mut() = metadata.clone();
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("the broker accepts connections");
        // Reads unary answers too: they are streams of one message.
        let codec = ProstCodec::<(), ()>::default();
        let answers = client.server_streaming(request, path, codec).await?;
        answers.into_inner().message().await.map(drop)
    }
}

/// Every RPC of the service named `claviger.v1.<service>`.
pub fn methods(service: &str) -> Vec<Method> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let files = set.file.iter().filter(|file| file.package() == PACKAGE);
    let found = files.flat_map(|file| &file.service).filter(|found| found.name() == service);
    let methods: Vec<_> = found
        .flat_map(|found| &found.method)
        .map(|method| {
            assert!(!method.client_streaming(), "{}: call it in another way", method.name());
            Method { service: format!("{PACKAGE}.{service}"), name: method.name().to_owned() }
        })
        .collect();
    assert!(!methods.is_empty(), "no `{service}` in the descriptors");
    methods
}

/// Every service of the contract.
pub fn services() -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let files = set.file.into_iter().filter(|file| file.package() == PACKAGE);
    files.flat_map(|file| file.service).map(|service| service.name().to_owned()).collect()
}

/// Metadata with these values of `authorization`, in order.
pub fn authorization(values: &[&str]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for value in values {
        metadata.append("authorization", value.parse().expect("ascii"));
    }
    metadata
}

const PACKAGE: &str = "claviger.v1";
