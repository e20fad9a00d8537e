//! What a machine takes of its node: processors' time and memory, as whoever runs it counts them.
//!
//! Nothing is kept here and no rate is made: who asks twice has one, over whichever time they like.

use axum::Json;
use axum::extract::{Path, State};
use rvm_proto::v1::UsageResponse;
use rvm_types::VirtualMachineInstance;
use serde_json::{Value, json};
use tonic::Status;

use crate::reach::Unreachable;
use crate::subresources::{Machine, Refused, Subresources};

/// What all processes of one machine take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// When this was so, in microseconds of a clock of the node that never goes back.
    pub at: u64,
    /// Processors' time that was spent since the machine's process began, in microseconds.
    pub cpu: u64,
    /// Bytes of memory that are held now.
    pub memory: u64,
    /// How many processors the guest has.
    pub cpus: u8,
    /// Bytes of memory that the guest has.
    pub guest_memory: u64,
}

/// Whoever counts what machines take: the handler.
#[tonic::async_trait]
pub trait Meters: Send + Sync + 'static {
    /// What this machine takes now.
    async fn usage(&self, vmi: &VirtualMachineInstance) -> Result<Usage, Unreachable>;
}

/// `GET …/usage`
pub(crate) async fn serve(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<Json<Value>, Refused> {
    let usage = server.usage(&machine).await?;
    Ok(Json(json!({
        "atMicroseconds": usage.at, "cpuMicroseconds": usage.cpu, "memoryBytes": usage.memory,
        "cpus": usage.cpus, "guestMemoryBytes": usage.guest_memory,
    })))
}

/// The status that says why nothing is known of this machine.
pub(crate) fn refusal(name: &str, why: &Unreachable) -> Status {
    why.status(&format!("nothing is counted of {name:?}"))
}

impl From<Usage> for UsageResponse {
    fn from(usage: Usage) -> Self {
        Self {
            at_microseconds: usage.at,
            cpu_microseconds: usage.cpu,
            memory_bytes: usage.memory,
            cpus: usage.cpus.into(),
            guest_memory_bytes: usage.guest_memory,
        }
    }
}

impl From<UsageResponse> for Usage {
    fn from(said: UsageResponse) -> Self {
        Self {
            at: said.at_microseconds,
            cpu: said.cpu_microseconds,
            memory: said.memory_bytes,
            cpus: u8::try_from(said.cpus).unwrap_or(u8::MAX),
            guest_memory: said.guest_memory_bytes,
        }
    }
}
