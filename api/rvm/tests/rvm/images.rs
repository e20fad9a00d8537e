//! `rvm images` against a server that keeps two images, one of which is used.

use std::sync::Mutex;

use rvm_server::{Image, ImageStore, ImageStoreError};
use rvm_types::VirtualMachineInstance;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::lab::{Lab, PATIENCE, stderr};
use crate::terminal::Terminal;

/// A node's images, in memory.
pub struct Shelf(Mutex<Vec<Image>>);

impl Default for Shelf {
    fn default() -> Self {
        Self(Mutex::new(vec![
            image("docker.io/library/alpine:3.23", &["default/a", "team/b"]),
            image("r.example/disk:1", &[]),
        ]))
    }
}

fn image(name: &str, machines: &[&str]) -> Image {
    Image {
        name: name.to_owned(),
        digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
        size: 12_897_485,
        unpacked: 0,
        last_used: 0,
        machines: machines.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[tonic::async_trait]
impl ImageStore for Shelf {
    async fn list(&self, _: &[VirtualMachineInstance]) -> Result<Vec<Image>, ImageStoreError> {
        Ok(self.0.lock().expect("nobody panics").clone())
    }

    async fn pull(&self, name: &str, tell: &(dyn Fn(u64, u64) + Sync)) -> Result<String, ImageStoreError> {
        tell(12 << 20, 50 << 20);
        if name.contains("endless") {
            std::future::pending::<()>().await;
        }
        if name.contains("missing") {
            return Err(ImageStoreError::Pull("manifest unknown".to_owned()));
        }
        self.0.lock().expect("nobody panics").push(image(name, &[]));
        Ok(name.to_owned())
    }

    async fn remove(&self, name: &str, _: &[VirtualMachineInstance]) -> Result<u64, ImageStoreError> {
        let mut images = self.0.lock().expect("nobody panics");
        let at = images.iter().position(|image| image.name == name);
        let at = at.ok_or_else(|| ImageStoreError::NotHere(name.to_owned()))?;
        if images[at].machines.is_empty() {
            return Ok(images.remove(at).size);
        }
        Err(ImageStoreError::InUse {
            name: name.to_owned(),
            machines: images[at].machines.clone(),
        })
    }

    async fn prune(&self, _: &[VirtualMachineInstance]) -> Result<(Vec<String>, u64), ImageStoreError> {
        let mut images = self.0.lock().expect("nobody panics");
        let (used, unused) = images.drain(..).partition(|image| !image.machines.is_empty());
        *images = used;
        let unused: Vec<Image> = unused;
        let freed = unused.iter().map(|image| image.size).sum();
        Ok((unused.into_iter().map(|image| image.name).collect(), freed))
    }
}

#[tokio::test]
async fn images_are_listed_with_their_sizes_and_who_uses_them() {
    let lab = Lab::new().await;
    let table = lab.ok(&["images", "ls"]).await;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "IMAGE", "DIGEST", "SIZE", "UNPACKED", "LAST", "USED", "USED", "BY"
        ]
    );
    let alpine = [
        "docker.io/library/alpine:3.23",
        "0123456789ab",
        "12.3",
        "MiB",
        "0",
        "B",
    ];
    assert_eq!(lines[1][..6], alpine);
    assert_eq!(lines[1].last(), Some(&"default/a,team/b"));
    let json: serde_json::Value =
        serde_json::from_str(&lab.ok(&["images", "list", "-o", "json"]).await).expect("JSON");
    assert_eq!(json[1]["name"], "r.example/disk:1");
    assert_eq!(json[1]["lastUsed"], "1970-01-01T00:00:00Z");
    assert_eq!(json[0]["usedBy"], serde_json::json!(["default/a", "team/b"]));
}

#[tokio::test]
async fn an_image_is_fetched_or_the_registrys_word_is_the_error() {
    let lab = Lab::new().await;
    let pulled = lab.ok(&["images", "pull", "r.example/new:1"]).await;
    assert!(
        pulled.starts_with("r.example/new:1 pulled (12.3 MiB, sha256:0123"),
        "{pulled}"
    );
    assert!(
        lab.ok(&["images", "list", "-o", "name"])
            .await
            .contains("r.example/new:1\n")
    );
    let refused = lab.error(&["images", "pull", "r.example/missing"]).await;
    assert_eq!(refused, "error: manifest unknown");
}

#[tokio::test]
async fn what_a_machine_uses_is_neither_removed_nor_pruned() {
    let lab = Lab::new().await;
    let refused = lab
        .error(&["images", "rm", "docker.io/library/alpine:3.23"])
        .await;
    assert_eq!(
        refused,
        "error: image \"docker.io/library/alpine:3.23\" is used by default/a, team/b"
    );
    let pruned = lab.ok(&["images", "gc"]).await;
    assert_eq!(pruned, "r.example/disk:1 removed\n12.3 MiB freed\n");
    let gone = lab.error(&["images", "remove", "r.example/disk:1"]).await;
    assert_eq!(gone, "error: image \"r.example/disk:1\" is not kept on this node");
}

#[tokio::test]
async fn a_pull_is_a_bar_on_a_terminal_and_nothing_is_left_of_it_after_ctrl_c() {
    let lab = Lab::new().await;
    let terminal = Terminal::new();
    let mut child = lab.spawn_on(&terminal.device, &["images", "pull", "r.example/endless:1"]);
    let seen = terminal.shows("12.00 MiB of 50.00 MiB").await;
    assert!(seen.contains("r.example/endless:1 [====="), "{seen:?}");
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .expect("it runs");
    kill_process(pid, Signal::INT).expect("it is told");
    let rest = terminal.shows("ended by SIGINT").await;
    let (cleared, error) = rest.rsplit_once("\u{1b}[2K").expect("a line is cleared");
    assert!(
        error.contains("error:") && !error.contains("MiB"),
        "{cleared:?} {error:?}"
    );
    let status = timeout(PATIENCE, child.wait())
        .await
        .expect("it ends")
        .expect("it can be waited for");
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn without_a_terminal_a_pull_says_only_what_came_of_it() {
    let lab = Lab::new().await;
    let output = lab.rvm(&["images", "pull", "r.example/new:1"]).await;
    assert_eq!(stderr(&output), "");
}
