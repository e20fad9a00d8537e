//! What this handler tells of itself and of its machines to whoever watches over it: KubeVirt's names where there is one, `rvm_` elsewhere.
//!
//! ```text
//!   /metrics ─► each machine here: its control socket and /proc (sample), side by side, each in time ─► OpenMetrics (figures)
//!            └► what was counted on the way: phases and how long they took
//!   /healthz    heartbeats are tried            /readyz    heartbeats are written
//! ```

mod figures;
mod sample;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rvm_server::Subresources;
use rvm_server::observe::{Pulse, Subject};
use rvm_types::VirtualMachineInstance;
use tokio::sync::watch;

use crate::plan::Me;
use crate::process::Machines;
use crate::vm::VmId;
use figures::Figures;
use sample::Sample;

/// Machines that are asked at once, and how long each may take.
const AT_ONCE: usize = 16;
const TAKES: Duration = Duration::from_secs(2);
/// Seconds of KubeVirt's histograms of phases.
const SECONDS: [f64; 18] = [
    0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0,
    3600.0,
];
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: String,
}

/// How long it took VMIs here to come so far.
#[derive(Debug, Clone)]
pub struct Transitions(Family<InPhase, Histogram>);

/// This handler.
pub struct Handler {
    /// Whose metrics they are.
    pub me: watch::Receiver<Me>,
    /// The machines.
    pub machines: Arc<Machines>,
    /// What was counted of them.
    pub transitions: Transitions,
    /// Consoles and ports that users have open, where this handler leads to them itself.
    pub below: Option<Subresources>,
    /// The heartbeat.
    pub pulse: Arc<Pulse>,
    /// How old a heartbeat may be.
    pub stale_after: Duration,
}

// === impl Transitions ===

impl Default for Transitions {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

impl Transitions {
    /// A VMI has been written: it may have come into another phase.
    pub fn saw(&self, before: &VirtualMachineInstance, after: &VirtualMachineInstance) {
        let Some(phase) = after.phase().filter(|phase| before.phase() != Some(phase)) else {
            return;
        };
        let Some(created) = &after.metadata.creation_timestamp else {
            return;
        };
        let took = Timestamp::now().duration_since(created.0).as_secs_f64().max(0.0);
        let phase = phase.as_str().to_owned();
        self.0.get_or_create(&InPhase { phase }).observe(took);
    }
}

// === impl Handler ===

impl Handler {
    /// Nothing has been counted yet, and the heart has just beaten.
    #[must_use]
    pub fn new(
        me: watch::Receiver<Me>,
        machines: &Arc<Machines>,
        below: Option<Subresources>,
        stale_after: Duration,
    ) -> Self {
        Self {
            me,
            machines: Arc::clone(machines),
            transitions: Transitions::default(),
            below,
            pulse: Arc::default(),
            stale_after,
        }
    }
}

#[tonic::async_trait]
impl Subject for Handler {
    async fn count(&self, registry: &mut Registry) {
        let machines = Arc::clone(&self.machines);
        let ids = tokio::task::spawn_blocking(move || machines.all().unwrap_or_default()).await;
        let ids = ids.unwrap_or_default();
        let (node, all) = (self.me.borrow().node.clone(), ids.len());
        let asked = futures::stream::iter(ids.into_iter().map(|id| self.ask(id)));
        let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
        let samples: Vec<_> = answers.into_iter().flatten().collect();
        gauge(
            registry,
            "rvm_handler_machines",
            "Machines whose folders are on this node",
            all,
        );
        gauge(
            registry,
            "rvm_handler_silent_machines",
            "Those of them that do not answer: they have ended, are about to start, or hang",
            all - samples.len(),
        );
        gauge(
            registry,
            "kubevirt_virt_handler_ready_status",
            "1 while this handler's heartbeats are written",
            usize::from(self.hindrance().await.is_none()),
        );
        registry.register(
            "kubevirt_vmi_phase_transition_time_from_creation_seconds",
            "How long after their creation VMIs of this node came into a phase",
            self.transitions.0.clone(),
        );
        if let Some(below) = &self.below {
            below.count(registry);
        }
        let mut all = Figures::default();
        samples.iter().for_each(|sample| all.add(&node, sample));
        all.register(registry);
    }

    async fn illness(&self) -> Option<String> {
        let untried = self.pulse.untried();
        (untried > self.stale_after).then(|| format!("no heartbeat was tried for {} s", untried.as_secs()))
    }

    async fn hindrance(&self) -> Option<String> {
        let failing = self.pulse.failing();
        (failing > self.stale_after).then(|| format!("no heartbeat was written for {} s", failing.as_secs()))
    }
}

impl Handler {
    /// What a machine says, if it does in time.
    async fn ask(&self, id: VmId) -> Option<Sample> {
        let socket = self.machines.run_dir(&id).control_socket();
        let asked = tokio::task::spawn_blocking(move || Sample::take(id, &socket));
        tokio::time::timeout(TAKES, asked).await.ok()?.ok()?
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use serde_json::json;

    use super::*;

    fn vmi(phase: &str) -> VirtualMachineInstance {
        let object = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "namespace": "b", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": phase},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_phase_is_counted_when_it_begins() {
        let transitions = Transitions::default();
        transitions.saw(&vmi("Scheduled"), &vmi("Running"));
        transitions.saw(&vmi("Running"), &vmi("Running"));
        let mut registry = Registry::default();
        registry.register("took", "x", transitions.0);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("took_count{phase=\"Running\"} 1\n"), "{text}");
    }
}
