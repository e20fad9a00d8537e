//! One at a time: of several that could do some work, the one does it that holds a Lease.
//!
//! ```text
//!   follow ──somebody else holds it──► look again
//!     └─free, or not renewed for its whole duration──► take it ──► work, renewing ──lost, or not renewed in time──► stop ──► follow
//! ```
//!
//! Clocks of different machines are never compared: whether another has let its time pass is measured by how long we have seen
//! its Lease stay the same. We stop earlier than that, so that two never work at once.

use std::future::Future;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio_util::sync::CancellationToken;

/// How long a Lease holds that is not renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How long we work without having renewed it; the rest is for finishing what is begun.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is looked at, and renewed.
const ROUND: Duration = Duration::from_secs(2);

/// Somebody who would do the work.
pub struct Candidate {
    leases: Api<Lease>,
    lease: &'static str,
    /// Told apart from all others, also from who had our name before.
    me: String,
}

/// Another's Lease, and since when it has been as it is.
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Ours,
    Free,
    Theirs,
}

// === impl Candidate ===

impl Candidate {
    /// Somebody for the work of this Lease.
    pub fn new(client: &kube::Client, namespace: &str, lease: &'static str, me: String) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            lease,
            me,
        }
    }

    /// Does the work each time that it is our turn, until `stop`. The work is told to stop by what it is given.
    pub async fn follow<W: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        work: impl Fn(CancellationToken) -> W,
    ) {
        while stop.run_until_cancelled(self.turn()).await.is_some() {
            tracing::info!(lease = self.lease, "we lead");
            let ended = CancellationToken::new();
            let mut work = std::pin::pin!(work(ended.clone()));
            tokio::select! {
                () = &mut work => {}
                () = self.renew() => tracing::warn!(lease = self.lease, "another leads, or nobody can tell"),
                () = stop.cancelled() => {}
            }
            ended.cancel();
            // What does not finish in time is dropped where it is.
            let _ = tokio::time::timeout(DURATION - DEADLINE, work).await;
        }
        self.release().await;
    }

    /// Returns when it is our turn.
    async fn turn(&self) {
        let mut seen = None;
        loop {
            match self.take(&mut seen).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, lease = self.lease, "it cannot be taken, trying again"),
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Returns when we no longer hold it, or cannot tell.
    async fn renew(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(ROUND).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            let asked = Instant::now();
            match tokio::time::timeout(left, self.take(&mut None)).await {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::debug!(%error, lease = self.lease, "not renewed, trying again"),
            }
        }
    }

    /// Takes or renews it, if it is our turn.
    async fn take(&self, seen: &mut Option<Seen>) -> kube::Result<bool> {
        let there = self.leases.get_opt(self.lease).await?;
        let turn = whose(there.as_ref(), &self.me, seen, Instant::now());
        if turn == Turn::Theirs {
            return Ok(false);
        }
        let wanted = self.held(there.as_ref(), turn == Turn::Ours);
        let written = match there {
            None => self.leases.create(&PostParams::default(), &wanted).await,
            Some(_) => {
                self.leases
                    .replace(self.lease, &PostParams::default(), &wanted)
                    .await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The Lease in our hands; it takes hold on the one that was read, or not at all.
    fn held(&self, before: Option<&Lease>, renewed: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let acquired = spec.acquire_time.filter(|_| renewed);
        let transitions = spec.lease_transitions.unwrap_or_default();
        Lease {
            metadata: before.map_or_else(
                || ObjectMeta {
                    name: Some(self.lease.to_owned()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions.saturating_add(i32::from(!renewed))),
                ..spec
            }),
        }
    }

    /// Lets the next one begin at once.
    async fn release(&self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(self.lease).await else {
            return;
        };
        if holder(&lease) != Some(self.me.as_str()) {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        // Whoever comes next waits, if that does not reach the cluster.
        let _ = self
            .leases
            .replace(self.lease, &PostParams::default(), &lease)
            .await;
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

fn whose(lease: Option<&Lease>, me: &str, seen: &mut Option<Seen>, now: Instant) -> Turn {
    let Some((lease, holder)) = lease.and_then(|lease| Some((lease, holder(lease)?))) else {
        return Turn::Free;
    };
    if holder == me {
        return Turn::Ours;
    }
    let version = lease.metadata.resource_version.clone();
    match seen {
        Some(seen) if seen.version == version => {
            let duration = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
            let duration = duration.and_then(|seconds| u64::try_from(seconds).ok());
            let duration = duration.map_or(DURATION, Duration::from_secs);
            match now.duration_since(seen.since) >= duration {
                true => Turn::Free,
                false => Turn::Theirs,
            }
        }
        seen => {
            *seen = Some(Seen { version, since: now });
            Turn::Theirs
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let lease = json!({
            "metadata": {"name": "work", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
        });
        serde_json::from_value(lease).expect("a lease")
    }

    #[test]
    fn a_lease_that_nobody_holds_is_free() {
        let whose = |lease: Option<&Lease>| whose(lease, "me", &mut None, Instant::now());
        assert_eq!(whose(None), Turn::Free);
        assert_eq!(whose(Some(&lease("", "1"))), Turn::Free);
        assert_eq!(whose(Some(&lease("me", "1"))), Turn::Ours);
        assert_eq!(whose(Some(&lease("other", "1"))), Turn::Theirs);
    }

    #[test]
    fn anothers_lease_is_free_when_it_has_stood_still_for_its_whole_duration() {
        let (mut seen, begin) = (None, Instant::now());
        let mut at = |second, version| {
            let now = begin + Duration::from_secs(second);
            whose(Some(&lease("other", version)), "me", &mut seen, now)
        };
        assert_eq!([at(0, "1"), at(14, "1")], [Turn::Theirs, Turn::Theirs]);
        assert_eq!(at(14, "2"), Turn::Theirs);
        assert_eq!([at(28, "2"), at(29, "2")], [Turn::Theirs, Turn::Free]);
    }
}
