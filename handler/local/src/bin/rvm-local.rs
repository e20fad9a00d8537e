//! The local API alone, without a handler: for the tests, and for looking at it with kubectl.
//!
//! `rvm-local STATE_DIR` serves on a free loopback port, prints the path of a kubeconfig, and runs until it is ended.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use rvm_local::{Identity, LocalApi, serve};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let state: PathBuf = std::env::args_os()
        .nth(1)
        .context("usage: rvm-local STATE_DIR")?
        .into();
    let api = LocalApi::open(&state, rvm_local::kubevirt()?, &[])?;
    let identity = Arc::new(Identity::open(&state)?);
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("no loopback port")?;
    let kubeconfig = state.join("kubeconfig");
    identity.kubeconfig(&kubeconfig, listener.local_addr()?)?;
    println!("{}", kubeconfig.display());
    serve(listener, api.router(), identity).await;
    Ok(())
}
