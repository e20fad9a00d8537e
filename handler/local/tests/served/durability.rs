//! What was acknowledged is there after a crash, and a state folder has one owner.

use std::process::Stdio;

use crate::server::{Server, command};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

async fn create(client: &Client, name: &str) -> Result<Node, kube::Error> {
    let node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::all(client.clone())
        .create(&PostParams::default(), &node)
        .await
}

/// Creates objects until the server is gone; returns those that were acknowledged.
async fn create_until_dead(client: Client, started: tokio::sync::oneshot::Sender<()>) -> Vec<Node> {
    const ENOUGH: usize = 10;
    let mut started = Some(started);
    let mut made = Vec::new();
    while let Ok(node) = create(&client, &format!("n{}", made.len())).await {
        made.push(node);
        if made.len() == ENOUGH {
            started.take().unwrap().send(()).unwrap();
        }
    }
    made
}

fn version(node: &Node) -> u64 {
    node.resource_version().unwrap().parse().unwrap()
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let state = tempfile::tempdir().unwrap();
    let mut first = Server::start(state.path());
    let (started, running) = tokio::sync::oneshot::channel();
    let writer = tokio::spawn(create_until_dead(first.client().await, started));
    running.await.unwrap();
    first.kill();
    let made = writer.await.unwrap();

    let second = Server::start(state.path());
    let client = second.client().await;
    let nodes: Api<Node> = Api::all(client.clone());
    let found: Vec<Node> = nodes.list(&ListParams::default()).await.unwrap().items;
    let lost: Vec<&Node> = made.iter().filter(|node| !found.contains(node)).collect();
    assert_eq!(lost, Vec::<&Node>::new());
    let newest = made.iter().map(version).max().unwrap();
    assert!(version(&create(&client, "later").await.unwrap()) > newest);
}

#[test]
fn second_server_on_one_state_folder_says_so_and_ends() {
    let state = tempfile::tempdir().unwrap();
    let _first = Server::start(state.path());
    let second = command(state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(
        said.contains("is in use: another handler runs in local mode with this state folder"),
        "{said}"
    );
}
