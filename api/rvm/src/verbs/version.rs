//! `rvm version`: who asks, and who answers.

use anyhow::Result;
use rvm_proto::v1::{VersionRequest, VersionResponse};
use serde_json::{Value, json};

use crate::args::{Global, Version, VersionOutput};
use crate::connect::Door;
use crate::screen::{printable, say};

/// What is printed, and what it is called in an answer.
const FIELDS: [(&str, &str); 7] = [
    ("GitVersion", "gitVersion"),
    ("GitCommit", "gitCommit"),
    ("GitTreeState", "gitTreeState"),
    ("BuildDate", "buildDate"),
    ("GoVersion", "goVersion"),
    ("Compiler", "compiler"),
    ("Platform", "platform"),
];

const CLIENT: &str = env!("CARGO_PKG_VERSION");

pub async fn run(global: &Global, args: &Version) -> Result<()> {
    let server = if args.client {
        Ok(None)
    } else {
        ask(global).await.map(Some)
    };
    match args.output {
        VersionOutput::Text => {
            say(&format!("Client Version: {}", line(&ourselves())))?;
            if let Ok(Some(server)) = &server {
                say(&format!("Server Version: {}", line(&server.said)))?;
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

/// Who answers.
struct Server {
    version: String,
    api_versions: Vec<String>,
    /// In KubeVirt's fields, as far as it says them.
    said: Value,
}

/// Whoever answers for machines: rvm.v1, or the Kubernetes API below which they are.
async fn ask(global: &Global) -> Result<Server> {
    match Door::find(global).await? {
        Door::Rvm(mut client) => {
            let VersionResponse {
                version,
                api_versions,
            } = client.version(VersionRequest {}).await?.into_inner();
            let said = json!({"gitVersion": format!("v{version}"), "gitCommit": format!("rvm-{version}")});
            Ok(Server {
                version,
                api_versions,
                said,
            })
        }
        Door::Kubernetes(cluster) => {
            let said = cluster.get(&cluster.of_group("version")).await?;
            let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
            Ok(Server {
                version: text("gitCommit"),
                api_versions: vec![format!("KubeVirt's {}", text("gitVersion"))],
                said,
            })
        }
    }
}

fn ourselves() -> Value {
    json!({
        "gitVersion": format!("v{CLIENT}"), "gitCommit": format!("rvm-{CLIENT}"), "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// As virtctl prints it, so that who cuts a version out of that finds it here.
fn line(said: &Value) -> String {
    let field = |(name, field): &(&str, &str)| {
        format!(
            "{name}:{:?}",
            printable(said[*field].as_str().unwrap_or_default())
        )
    };
    let fields: Vec<_> = FIELDS.iter().map(field).collect();
    format!("version.Info{{{}}}", fields.join(", "))
}
