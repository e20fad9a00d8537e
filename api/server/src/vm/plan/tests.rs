//! What is decided, case by case.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rvm_types::condition;
use rvm_types::vm::StartFailure;

use super::*;
use crate::vm::sample::{instance, machine, ran};

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn steps(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>) -> Vec<Step> {
    plan(&Seen {
        vm,
        vmi,
        made_from: None,
        now: now(),
    })
}

/// With the status that there would be.
fn settled(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>) -> VirtualMachine {
    let mut vm = vm.clone();
    let aspects = Aspects {
        settled: true,
        ..Aspects::default()
    };
    vm.status = Some(status::status(&vm, vmi, aspects, now()));
    vm
}

fn deleted(mut vmi: VirtualMachineInstance) -> VirtualMachineInstance {
    vmi.metadata.deletion_timestamp = Some(Time(now()));
    vmi
}

fn asking(strategy: &str, requests: &[StateChangeRequest]) -> VirtualMachine {
    let mut vm = machine(strategy);
    vm.status.as_mut().unwrap().state_change_requests = requests.to_vec();
    vm
}

const CREATE: Step = Step::Create { paused: false };

#[test]
fn a_vm_is_held_before_anything_is_made() {
    let mut vm = machine("Always");
    vm.metadata.finalizers = None;
    assert_eq!(steps(&vm, None), [Step::Hold]);
}

#[test]
fn each_strategy_starts_as_it_says() {
    let first = |strategy| {
        let mut vm = machine(strategy);
        vm.status = None;
        steps(&vm, None).remove(0)
    };
    assert_eq!(first("Always"), CREATE);
    assert_eq!(first("RerunOnFailure"), CREATE);
    assert_eq!(first("Once"), CREATE);
    assert!(matches!(first("Manual"), Step::Report(_)));
    assert!(matches!(first("Halted"), Step::Report(_)));
}

#[test]
fn each_strategy_replaces_what_ended_as_it_says() {
    let after = |strategy, phase| {
        let vmi = ran(phase);
        steps(&settled(&machine(strategy), Some(&vmi)), Some(&vmi))
    };
    assert_eq!(after("Always", "Succeeded"), [Step::Delete]);
    assert_eq!(after("Always", "Failed"), [Step::Delete]);
    assert_eq!(after("RerunOnFailure", "Succeeded"), [Step::Delete]);
    assert_eq!(after("RerunOnFailure", "Failed"), [Step::Request, Step::Delete]);
    assert_eq!(after("Manual", "Failed"), []);
    assert_eq!(after("Once", "Failed"), []);
    assert_eq!(after("Halted", "Failed"), [Step::Delete]);
}

#[test]
fn only_halted_ends_what_runs() {
    let with = |strategy| {
        let vmi = ran("Running");
        steps(&settled(&machine(strategy), Some(&vmi)), Some(&vmi))
    };
    assert_eq!(with("Halted"), [Step::Delete]);
    assert!(
        ["Always", "RerunOnFailure", "Manual", "Once"]
            .iter()
            .all(|strategy| with(strategy).is_empty())
    );
}

#[test]
fn a_strategy_that_was_followed_starts_nothing_more() {
    let again = |strategy| steps(&settled(&machine(strategy), None), None);
    assert_eq!(again("RerunOnFailure"), []);
    assert_eq!(again("Once"), []);
    assert_eq!(again("Always"), [CREATE]);
}

#[test]
fn a_failed_one_is_run_again_once_it_is_gone() {
    let vm = asking("RerunOnFailure", &[StateChangeRequest::start()]);
    let vmi = ran("Failed");
    assert_eq!(steps(&vm, Some(&vmi)), [Step::Delete]);
    // What was asked for outlives the instance that is leaving.
    let vm = settled(&vm, Some(&deleted(vmi)));
    assert_eq!(steps(&vm, None), [CREATE]);
}

#[test]
fn requests_are_done_in_their_order() {
    let mut paused = StateChangeRequest::start();
    paused
        .data
        .insert(StateChangeRequest::PAUSED.to_owned(), "true".to_owned());
    let vm = asking("Manual", &[StateChangeRequest::stop("vmi-uid"), paused]);
    assert_eq!(steps(&vm, Some(&ran("Running"))), [Step::Delete]);
    assert_eq!(steps(&vm, None), [Step::Create { paused: true }]);
    let vm = settled(&vm, None);
    assert_eq!(vm.status.unwrap().state_change_requests.len(), 1);
}

#[test]
fn a_stop_of_an_instance_that_is_gone_ends_no_other() {
    let vm = asking("Manual", &[StateChangeRequest::stop("an-older-one")]);
    let vmi = ran("Running");
    assert_eq!(steps(&settled(&vm, Some(&vmi)), Some(&vmi)), []);
}

#[test]
fn a_volume_that_is_asked_for_comes_into_the_template_and_the_instance() {
    let mut vm = machine("Always");
    let request = crate::vm::sample::volume("data");
    vm.status.as_mut().unwrap().volume_requests = vec![request.clone()];
    let mut vmi = ran("Running");
    assert_eq!(steps(&vm, Some(&vmi)), [Step::Rearrange]);
    let made_from = vm.spec.template.clone();
    request.apply(&mut vm.spec.template.spec);
    vm.metadata.generation = Some(4);
    // Whoever is killed here goes on here.
    assert_eq!(steps(&vm, Some(&vmi)), [Step::Rearrange]);
    request.apply(&mut vmi.spec);
    let steps = |vm: &VirtualMachine, vmi| {
        plan(&Seen {
            vm,
            vmi: Some(vmi),
            made_from: Some(&made_from),
            now: now(),
        })
    };
    // No other instance is needed for that.
    assert_eq!(steps(&vm, &vmi), [Step::Follow]);
    let left = settled(&vm, Some(&vmi)).status.unwrap().volume_requests;
    assert_eq!(left, []);
    // One that its author wrote into the template comes with the next instance.
    let told = steps(&settled(&vm, None), &ran("Running"));
    let [Step::Report(status)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(condition::find(&status.conditions, "RestartRequired").is_some());
}

#[test]
fn a_vm_that_does_not_run_has_what_is_asked_for_in_its_template() {
    let mut vm = machine("Halted");
    let request = crate::vm::sample::volume("data");
    vm.status.as_mut().unwrap().volume_requests = vec![request.clone()];
    assert_eq!(steps(&vm, None), [Step::Rearrange]);
    request.apply(&mut vm.spec.template.spec);
    let told = steps(&vm, None);
    assert!(matches!(&told[..], [Step::Report(status)] if status.volume_requests.is_empty()));
}

#[test]
fn a_start_of_a_halted_vm_makes_it_always() {
    let vm = asking("Halted", &[StateChangeRequest::start()]);
    assert_eq!(steps(&vm, None), [Step::BeAlways]);
}

#[test]
fn a_vm_whose_instances_fail_to_start_waits() {
    let mut vm = machine("Always");
    vm.status.as_mut().unwrap().start_failure = Some(StartFailure {
        consecutive_fail_count: Some(1),
        retry_after_timestamp: Some(Time(Timestamp::from_second(NOW + 7).unwrap())),
        ..StartFailure::default()
    });
    let mut told = steps(&vm, None);
    let Some(Step::Report(status)) = told.pop() else {
        panic!("{told:?}")
    };
    assert_eq!(status.printable_status.as_deref(), Some("CrashLoopBackOff"));
    vm.status = Some(*status);
    assert_eq!(steps(&vm, None), [Step::Wait(Duration::from_secs(7))]);
}

#[test]
fn how_an_instance_ended_is_told_before_it_goes() {
    let vmi = deleted(instance("Failed"));
    let vm = machine("Always");
    let told = steps(&vm, Some(&vmi));
    assert!(
        matches!(&told[..], [Step::Report(status), Step::Release] if status.start_failure.is_some()),
        "{told:?}"
    );
}

#[test]
fn an_instance_that_still_runs_is_not_released() {
    let vmi = deleted(ran("Running"));
    assert_eq!(steps(&settled(&machine("Halted"), Some(&vmi)), Some(&vmi)), []);
    let mut nobodys = deleted(instance("Pending"));
    nobodys.metadata.finalizers = machine("Halted").metadata.finalizers;
    assert_eq!(
        steps(&settled(&machine("Halted"), Some(&nobodys)), Some(&nobodys)),
        [Step::Release]
    );
}

#[test]
fn a_deleted_vm_takes_its_instance_with_it() {
    let mut vm = machine("Always");
    vm.metadata.deletion_timestamp = Some(Time(now()));
    let vm = |vmi| settled(&vm, vmi);
    let (runs, ended) = (ran("Running"), deleted(ran("Succeeded")));
    assert_eq!(steps(&vm(Some(&runs)), Some(&runs)), [Step::Delete]);
    assert_eq!(steps(&vm(Some(&ended)), Some(&ended)), [Step::Release]);
    assert_eq!(steps(&vm(None), None), [Step::LetGo]);
}

#[test]
fn a_vm_that_is_deleted_for_orphans_leaves_its_instance() {
    let mut vm = machine("Always");
    vm.metadata.deletion_timestamp = Some(Time(now()));
    vm.metadata
        .finalizers
        .as_mut()
        .unwrap()
        .push(finalizers::ORPHAN.to_owned());
    let runs = ran("Running");
    assert_eq!(steps(&settled(&vm, Some(&runs)), Some(&runs)), [Step::Disown]);
    assert_eq!(steps(&settled(&vm, None), None), [Step::LetGo]);
}

#[test]
fn an_instance_that_was_made_an_orphan_is_not_kept_by_us() {
    let mut vm = machine("Always");
    vm.metadata.deletion_timestamp = Some(Time(now()));
    let mut orphan = ran("Running");
    orphan.metadata.owner_references = None;
    orphan.metadata.finalizers = Some(vec![finalizers::VM_CONTROLLER.to_owned()]);
    assert_eq!(steps(&vm, Some(&orphan)), [Step::Disown]);
    orphan.metadata.finalizers = None;
    assert_eq!(steps(&vm, Some(&orphan)).last(), Some(&Step::LetGo));
}

#[test]
fn an_instance_of_nobody_is_adopted_and_anothers_is_not_touched() {
    let mut vmi = ran("Running");
    vmi.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    let told = steps(&machine("Halted"), Some(&vmi));
    assert!(
        matches!(&told[..], [Step::Report(status)]
        if status.conditions.iter().any(|condition| condition.condition_type == "Failure")),
        "{told:?}"
    );
    vmi.metadata.owner_references = None;
    assert_eq!(steps(&machine("Halted"), Some(&vmi)), [Step::Adopt]);
}

#[test]
fn a_changed_template_asks_for_a_restart_and_a_changed_strategy_does_not() {
    let made_from = machine("Always").spec.template;
    let vmi = ran("Running");
    let mut vm = settled(&machine("Always"), Some(&vmi));
    vm.metadata.generation = Some(4);
    let with = |vm: &VirtualMachine| {
        plan(&Seen {
            vm,
            vmi: Some(&vmi),
            made_from: Some(&made_from),
            now: now(),
        })
    };
    assert_eq!(with(&vm), [Step::Follow]);
    vm.spec.template.spec.hostname = Some("other".to_owned());
    let told = with(&vm);
    assert!(
        matches!(&told[..], [Step::Report(status)]
        if status.conditions.iter().any(|condition| condition.condition_type == "RestartRequired")),
        "{told:?}"
    );
}

#[test]
fn the_word_for_people_is_the_first_that_fits() {
    let word = |vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>| {
        settled(vm, vmi).status.unwrap().printable_status.unwrap()
    };
    let vm = machine("Always");
    assert_eq!(word(&vm, None), "Stopped");
    assert_eq!(word(&vm, Some(&instance("Scheduling"))), "Starting");
    assert_eq!(word(&vm, Some(&ran("Running"))), "Running");
    assert_eq!(word(&vm, Some(&deleted(ran("Running")))), "Stopping");
    assert_eq!(word(&vm, Some(&ran("Succeeded"))), "Stopped");
    let mut paused = ran("Running");
    let condition = condition::Condition::new("Paused", "True");
    paused.status.as_mut().unwrap().conditions.push(condition);
    assert_eq!(word(&vm, Some(&paused)), "Paused");
}
