//! `rvm version`: who asks, and who answers.

use anyhow::Result;
use rvm_proto::v1::{VersionRequest, VersionResponse};
use serde_json::json;

use crate::args::{Global, Version, VersionOutput};
use crate::connect::Door;
use crate::screen::say;

const CLIENT: &str = env!("CARGO_PKG_VERSION");

pub async fn run(global: &Global, args: &Version) -> Result<()> {
    let server = if args.client {
        Ok(None)
    } else {
        ask(global).await.map(Some)
    };
    match args.output {
        VersionOutput::Text => {
            say(&format!("Client: {CLIENT}"))?;
            if let Ok(Some(server)) = &server {
                say(&format!(
                    "Server: {} (API {})",
                    server.version,
                    server.api_versions.join(", ")
                ))?;
            }
        }
        VersionOutput::Json => {
            let mut versions = json!({ "client": { "version": CLIENT } });
            if let Ok(Some(server)) = &server {
                versions["server"] = json!({ "version": server.version, "apiVersions": server.api_versions });
            }
            say(&serde_json::to_string_pretty(&versions)?)?;
        }
    }
    // What is known has been said; that the rest is not known is still an error.
    server.map(drop)
}

/// Whoever answers for machines: rvm.v1, or the Kubernetes API below which they are.
async fn ask(global: &Global) -> Result<VersionResponse> {
    match Door::find(global).await? {
        Door::Rvm(mut client) => Ok(client.version(VersionRequest {}).await?.into_inner()),
        Door::Kubernetes(cluster) => {
            let said = cluster.get(&cluster.of_group("version")).await?;
            let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
            Ok(VersionResponse {
                version: text("gitCommit"),
                api_versions: vec![format!("KubeVirt's {}", text("gitVersion"))],
            })
        }
    }
}
