//! What is to be done for a VMI: a pure function of it and of its pods.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use rvm_types::condition;
use rvm_types::names::{conditions, reasons};
use rvm_types::{Claim, Phase, VirtualMachineInstance, VirtualMachineInstanceStatus};

use super::status;

/// How long a handler has to say how a machine ended whose pod is gone: it has seen it first, and says it better.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a deleted VMI's machine may take to end beyond its grace, before its pod is ended.
const MARGIN: Duration = Duration::from_secs(15);

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The VMI.
    pub vmi: &'a VirtualMachineInstance,
    /// Its pods.
    pub pods: &'a [Pod],
    /// The time.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<'a> {
    /// Makes its pod.
    Create,
    /// Ends a pod.
    Delete(&'a Pod),
    /// Writes its status.
    Report(Box<VirtualMachineInstanceStatus>),
    /// There is nothing to do before this much time.
    Wait(Duration),
}

/// The next steps. None where there is nothing to do until something changes.
pub fn plan<'a>(seen: &Seen<'a>) -> Vec<Step<'a>> {
    let vmi = seen.vmi;
    let phase = vmi.phase();
    if vmi.metadata.deletion_timestamp.is_some() {
        return deleted(seen);
    }
    if phase.is_some_and(Phase::is_final) {
        return seen.newest().map_or_else(Vec::new, |pod| over(seen, pod));
    }
    let Some(pod) = seen.newest() else {
        return podless(seen);
    };
    let ran = matches!(phase, Some(Phase::Running));
    match status::is_down(pod) {
        true if ran => seen.ended(&status::epitaph(pod), ended_at(pod)),
        true => seen.report(status::failed(vmi, &status::epitaph(pod), seen.now)),
        false => seen.report(status::with_pod(vmi, pod, seen.now)),
    }
}

/// It has ended, and its pod's process with it, or soon; one that was never given a machine would wait for ever.
fn over<'a>(seen: &Seen<'a>, pod: &'a Pod) -> Vec<Step<'a>> {
    let told = seen.tell_pods(pod);
    if !told.is_empty() || status::is_down(pod) || pod.metadata.deletion_timestamp.is_some() {
        return told;
    }
    let transitions = seen
        .vmi
        .status
        .iter()
        .flat_map(|status| &status.phase_transition_timestamps);
    let since = transitions
        .filter_map(|one| one.phase_transition_timestamp.as_ref())
        .map(|time| time.0);
    match since.max().and_then(|since| left(since, PATIENCE, seen.now)) {
        Some(left) => vec![Step::Wait(left)],
        None => vec![Step::Delete(pod)],
    }
}

/// It is to end. Its handler has its machine end, and waits until it has no pod.
fn deleted<'a>(seen: &Seen<'a>) -> Vec<Step<'a>> {
    let vmi = seen.vmi;
    let Some(since) = vmi.metadata.deletion_timestamp.as_ref().map(|time| time.0) else {
        return vec![];
    };
    if seen.pods.is_empty() {
        let had = vmi
            .status
            .as_ref()
            .is_some_and(|status| !status.active_pods.is_empty());
        return if had {
            seen.report(status::without_pod(vmi, seen.now))
        } else {
            vec![]
        };
    }
    let runs = matches!(vmi.phase(), Some(Phase::Scheduled | Phase::Running));
    let all_down = seen.pods.iter().all(status::is_down);
    if runs && !all_down {
        let left = left(since, vmi.grace_period() + MARGIN, seen.now);
        if let Some(left) = left {
            return vec![Step::Wait(left)];
        }
    }
    let going = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    seen.pods.iter().filter(going).map(Step::Delete).collect()
}

/// It has no pod. One that never had any gets one; any other has lost it.
fn podless<'a>(seen: &Seen<'a>) -> Vec<Step<'a>> {
    let vmi = seen.vmi;
    let status = vmi.status.as_ref();
    let had = status.is_some_and(|status| !status.active_pods.is_empty());
    let is_open = status.is_none_or(status::is_open);
    let is_claimed = Claim::on(vmi).is_some();
    let why = "Its virt-launcher pod is gone, and the machine with it.";
    match (is_open, had) {
        (true, true) => return seen.report(status::failed(vmi, why, seen.now)),
        (true, false) if !is_claimed => return vec![Step::Create],
        (false, true) if is_claimed => {
            let mut steps = seen.report(status::without_pod(vmi, seen.now));
            steps.push(Step::Wait(PATIENCE));
            return steps;
        }
        _ => {}
    }
    // What never had a pod is run without one, or its status is what somebody wrote: handlers see to both.
    let ready = status.and_then(|status| condition::find(&status.conditions, conditions::READY));
    let told = ready.filter(|ready| ready.reason.as_deref() == Some(reasons::POD_NOT_EXISTS));
    let since = told.and_then(|told| told.last_transition_time.as_ref());
    match since.filter(|_| !is_open && is_claimed) {
        Some(since) => seen.ended(why, Some(since.0)),
        None => vec![],
    }
}

// === impl Seen ===

impl<'a> Seen<'a> {
    /// The pod that counts: one that lives, else any.
    fn newest(&self) -> Option<&'a Pod> {
        let alive = self.pods.iter().find(|pod| !status::is_down(pod));
        alive.or(self.pods.first())
    }

    /// A machine that ran is over with its pod, since then: its handler says how, or nobody.
    fn ended(&self, why: &str, since: Option<Timestamp>) -> Vec<Step<'a>> {
        match since.and_then(|since| left(since, PATIENCE, self.now)) {
            Some(left) => vec![Step::Wait(left)],
            None => self.report(status::failed(self.vmi, why, self.now)),
        }
    }

    /// Says only which pods there are.
    fn tell_pods(&self, pod: &Pod) -> Vec<Step<'a>> {
        let mut wanted = self.vmi.status.clone().unwrap_or_default();
        wanted.active_pods = status::with_pod(self.vmi, pod, self.now).active_pods;
        self.report(wanted)
    }

    fn report(&self, wanted: VirtualMachineInstanceStatus) -> Vec<Step<'a>> {
        if self.vmi.status.as_ref() == Some(&wanted) {
            return vec![];
        }
        vec![Step::Report(Box::new(wanted))]
    }
}

/// When the last of a pod's containers ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = containers.iter().filter_map(|container| {
        let terminated = container.state.as_ref()?.terminated.as_ref()?;
        Some(terminated.finished_at.as_ref()?.0)
    });
    ended.max()
}

/// What is left of a time that began then.
fn left(since: Timestamp, time: Duration, now: Timestamp) -> Option<Duration> {
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    time.checked_sub(passed).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::sample::{claimed, pod, running, vmi, with};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn planned(vmi: &VirtualMachineInstance, pods: &[Pod]) -> Vec<String> {
        let steps = plan(&Seen {
            vmi,
            pods,
            now: now(),
        });
        steps.iter().map(told).collect()
    }

    /// A step in a few words.
    fn told(step: &Step<'_>) -> String {
        match step {
            Step::Create => "create".to_owned(),
            Step::Delete(_) => "delete".to_owned(),
            Step::Wait(time) => format!("wait {}", time.as_secs()),
            Step::Report(status) => {
                let conditions = status.conditions.iter().map(|one| {
                    let reason = one.reason.as_deref().unwrap_or_default();
                    format!(
                        " {}={}{}{reason}",
                        one.condition_type,
                        one.status,
                        if reason.is_empty() { "" } else { "/" }
                    )
                });
                let phase = status.phase.as_ref().map_or("none", Phase::as_str);
                let pods: Vec<_> = status.active_pods.values().map(String::as_str).collect();
                format!(
                    "{phase} on [{}]{}",
                    pods.join(","),
                    conditions.collect::<String>()
                )
            }
        }
    }

    fn deleted(mut vmi: VirtualMachineInstance, at: &str) -> VirtualMachineInstance {
        let mut json = serde_json::to_value(&vmi).unwrap();
        json["metadata"]["deletionTimestamp"] = at.into();
        vmi = serde_json::from_value(json).unwrap();
        vmi
    }

    fn ended(at: &str) -> Pod {
        pod(&json!({"status": {"phase": "Failed", "containerStatuses": [{
            "name": "compute", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at}},
        }]}}))
    }

    #[test]
    fn one_that_waits_gets_one_pod_and_is_told_where_it_is() {
        let fresh = vmi(json!({}));
        assert_eq!(planned(&fresh, &[]), ["create"]);
        assert_eq!(
            planned(&fresh, &[pod(&json!({}))]),
            ["Scheduling on [] Ready=False/GuestNotRunning"]
        );
        assert_eq!(
            planned(&fresh, &[running()]),
            ["Scheduling on [n1] Ready=False/GuestNotRunning"]
        );
    }

    #[test]
    fn what_scheduler_and_kubelet_say_of_the_pod_is_said_of_the_vmi() {
        let unschedulable = pod(&json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"},
        ]}}));
        assert_eq!(
            planned(&vmi(json!({})), &[unschedulable]),
            ["Scheduling on [] PodScheduled=False/Unschedulable Ready=False/GuestNotRunning"]
        );
        let pulling = pod(&json!({"status": {"containerStatuses": [{
            "name": "compute", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}},
        }]}}));
        assert_eq!(
            planned(&vmi(json!({})), &[pulling]),
            ["Scheduling on [] Synchronized=False/ImagePullBackOff Ready=False/GuestNotRunning"]
        );
    }

    #[test]
    fn one_that_runs_is_as_ready_as_its_pod() {
        let mut vmi = claimed("Running");
        assert_eq!(planned(&vmi, &[running()]), ["Running on [n1] Ready=True"]);
        let seen = Seen {
            vmi: &vmi.clone(),
            pods: &[running()],
            now: now(),
        };
        if let [Step::Report(status)] = plan(&seen).as_slice() {
            vmi.status = Some(VirtualMachineInstanceStatus::clone(status));
        }
        assert_eq!(planned(&vmi, &[running()]), Vec::<String>::new());
        let unready = pod(&json!({
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]},
        }));
        assert_eq!(
            planned(&vmi, &[unready]),
            ["Running on [n1] Ready=False/ContainersNotReady"]
        );
    }

    #[test]
    fn one_whose_pod_went_before_it_ran_has_failed_and_gets_no_other() {
        let waits = |status: Value| with(json!({}), json!({}), status);
        let had = waits(json!({"phase": "Scheduling", "activePods": {"pod-uid": "n1"}}));
        assert_eq!(planned(&had, &[]), ["Failed on [n1] Ready=False/GuestNotRunning"]);
        let down = [ended("2026-01-01T00:09:59Z")];
        for phase in ["Scheduling", "Scheduled"] {
            assert_eq!(
                planned(&claimed(phase), &down),
                ["Failed on [] Ready=False/GuestNotRunning"]
            );
        }
    }

    #[test]
    fn how_a_machine_that_ran_has_ended_is_its_handlers_word_while_it_speaks() {
        let runs = claimed("Running");
        assert_eq!(planned(&runs, &[ended("2026-01-01T00:09:55Z")]), ["wait 10"]);
        assert_eq!(
            planned(&runs, &[ended("2026-01-01T00:09:45Z")]),
            ["Failed on [] Ready=False/GuestNotRunning"]
        );
        let mut had = runs.clone();
        let pods = &mut had.status.as_mut().unwrap().active_pods;
        pods.insert("pod-uid".into(), "n1".into());
        assert_eq!(
            planned(&had, &[]),
            ["Running on [] Ready=False/PodNotExists", "wait 15"]
        );
        let told = |at: &str| {
            let ready = json!([{"type": "Ready", "status": "False", "reason": "PodNotExists", "lastTransitionTime": at}]);
            let mut json = serde_json::to_value(claimed("Running")).unwrap();
            json["status"]["conditions"] = ready;
            serde_json::from_value::<VirtualMachineInstance>(json).unwrap()
        };
        assert_eq!(planned(&told("2026-01-01T00:09:50Z"), &[]), ["wait 5"]);
        assert_eq!(
            planned(&told("2026-01-01T00:09:00Z"), &[]),
            ["Failed on [] Ready=False/GuestNotRunning"]
        );
    }

    #[test]
    fn one_that_runs_without_a_pod_is_left_alone() {
        for phase in ["Scheduling", "Scheduled", "Running"] {
            assert_eq!(planned(&claimed(phase), &[]), Vec::<String>::new());
        }
    }

    #[test]
    fn a_status_that_somebody_wrote_makes_no_pod() {
        let written = with(json!({}), json!({}), json!({"phase": "Running"}));
        assert_eq!(planned(&written, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_deleted_ones_pod_ends_when_its_machine_has_or_its_time_is_over() {
        let lately = "2026-01-01T00:09:50Z";
        let pods = [running()];
        assert_eq!(planned(&deleted(claimed("Running"), lately), &pods), ["wait 35"]);
        assert_eq!(
            planned(&deleted(claimed("Running"), "2026-01-01T00:09:00Z"), &pods),
            ["delete"]
        );
        for phase in ["Scheduling", "Succeeded", "Failed"] {
            assert_eq!(planned(&deleted(claimed(phase), lately), &pods), ["delete"]);
        }
        let goes = pod(&json!({"metadata": {"deletionTimestamp": lately}}));
        assert_eq!(
            planned(&deleted(claimed("Failed"), lately), &[goes]),
            Vec::<String>::new()
        );
        let mut last = deleted(claimed("Failed"), lately);
        assert_eq!(planned(&last, &[]), Vec::<String>::new());
        last.status
            .as_mut()
            .unwrap()
            .active_pods
            .insert("pod-uid".into(), "n1".into());
        assert_eq!(planned(&last, &[]), ["Failed on [] Ready=False/PodNotExists"]);
    }

    #[test]
    fn of_one_that_has_ended_only_the_pods_are_told() {
        let ended = claimed("Succeeded");
        assert_eq!(planned(&ended, &[]), Vec::<String>::new());
        assert_eq!(planned(&ended, &[running()]), ["Succeeded on [n1]"]);
    }

    #[test]
    fn a_process_that_waits_for_a_machine_that_has_failed_does_not_wait_for_ever() {
        let mut failed = claimed("Failed");
        let pods = &mut failed.status.as_mut().unwrap().active_pods;
        pods.insert("pod-uid".into(), "n1".into());
        assert_eq!(planned(&failed, &[running()]), ["delete"]);
        let mut lately = failed.clone();
        lately
            .status
            .as_mut()
            .unwrap()
            .enter(Phase::Unknown, Time("2026-01-01T00:09:50Z".parse().unwrap()));
        lately.status.as_mut().unwrap().phase = Some(Phase::Failed);
        assert_eq!(planned(&lately, &[running()]), ["wait 5"]);
    }
}
