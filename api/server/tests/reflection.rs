//! The server tells programs what it speaks: they need no file of ours.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::{fs, future};

use rvm_server::fake::{FakeApi, FakeMachines};
use rvm_server::{MachinesService, UnixDoor};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn asked(client: &mut ServerReflectionClient<Channel>, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await;
    let answer = answers.expect("it is served").into_inner().message().await;
    let answer = answer.expect("no error").expect("an answer");
    answer.message_response.expect("with words")
}

#[tokio::test]
async fn a_program_learns_the_calls_and_what_they_mean() {
    let folder = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder");
    let socket = folder.path().join("rvm.sock");
    let machines = Arc::new(FakeMachines::new().0);
    let service = MachinesService::new(FakeApi::default().client(), machines);
    let door = UnixDoor::bind(&socket).expect("a socket");
    tokio::spawn(door.serve(service, future::pending()));
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("an address");
    let mut client = ServerReflectionClient::new(endpoint.connect().await.expect("it listens"));

    let listed = asked(&mut client, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(listed) = listed else {
        unreachable!("{listed:?}");
    };
    assert!(
        listed
            .service
            .iter()
            .any(|service| service.name == "rvm.v1.Machines"),
        "{listed:?}"
    );

    let symbol = MessageRequest::FileContainingSymbol("rvm.v1.Machines.Console".to_owned());
    let MessageResponse::FileDescriptorResponse(file) = asked(&mut client, symbol).await else {
        unreachable!("it is there");
    };
    let file = file.file_descriptor_proto.concat();
    let words = "The machine's serial console.";
    assert!(
        file.windows(words.len()).any(|window| window == words.as_bytes()),
        "with its comments"
    );
}
