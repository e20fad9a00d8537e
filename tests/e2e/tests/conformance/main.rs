//! KubeVirt's conformance cases, under their numbers.
//!
//! Each is what a KubeVirt user may rely on, told as one test. It is carried out three times: in a cluster, with a real kube-apiserver and
//! our API server behind its aggregation, the same with a node that has KVM (the lab), and in local mode, with the embedded API.
//! `tests/e2e/CONFORMANCE.md` lists all 53, also those that are not here and why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod cloud_init;
mod consoles;
mod endings;
mod instances;
mod machines;
mod place;
mod pods;
mod ports;
mod strategies;
mod troubles;

/// Each case in a cluster, under the name that says how often, in local mode, and on a node with KVM.
macro_rules! everywhere {
    ($($place:ident { $($module:ident: $($case:ident),+;)+ })+) => {
        /// The names of all cases.
        const CASES: &[&str] = &[$($($(stringify!($case)),+),+),+];

        $(mod $place {
            $($(#[test] fn $case() { crate::$module::$case(&crate::place::Place::cluster().unwrap()); })+)+
        })+

        mod local {
            $($($(#[test] fn $case() { crate::$module::$case(&crate::place::Place::local().unwrap()); })+)+)+
        }

        mod full_lab {
            $($($(#[test] fn $case() { crate::$module::$case(&crate::place::Place::lab().unwrap()); })+)+)+
        }
    };
}

everywhere! {
    // In every run: one of each kind, which the others are like.
    cluster {
        agents:
            case_20_a_guest_is_frozen_and_thawed_time_and_again;
        consoles:
            case_01_a_second_console_ends_the_first;
        endings:
            case_14_the_grace_period_that_was_given_is_kept;
        machines:
            case_03_the_condition_of_a_vm_says_paused,
            case_26_a_restart_brings_the_generation_of_the_vm,
            case_41_a_vm_stays_until_its_vmi_is_gone;
        strategies:
            case_05_a_vm_stops,
            case_29_orphans_stay_and_have_no_owner;
        troubles:
            case_37_a_vm_says_what_it_waits_for;
    }
    // In `make test-full`.
    full_cluster {
        agents:
            case_17_a_guest_s_agent_boots_it_again,
            case_19_without_an_agent_nobody_can_be_asked_to_boot_again,
            case_21_a_frozen_guest_is_thawed_when_its_time_is_over;
        consoles:
            case_02_a_vmi_without_a_serial_console_refuses_one;
        instances:
            case_04_a_vmi_is_paused_and_goes_on,
            case_07_a_vmi_starts_time_and_again,
            case_10_a_vmi_may_start_paused,
            case_22_requests_alone_are_burstable,
            case_23_requests_that_are_their_limits_are_guaranteed,
            case_24_limits_alone_are_guaranteed;
        cloud_init:
            case_08_user_data_comes_from_a_secret,
            case_09_user_data_comes_in_base64,
            case_47_ssh_keys_come_by_either_kind_of_cloud_init;
        endings:
            case_13_a_vmi_that_is_deleted_is_gone,
            case_15_the_grace_period_is_thirty_seconds,
            case_16_a_guest_that_is_asked_to_end_ends_by_itself;
        machines:
            case_25_a_template_s_annotations_are_its_vmi_s,
            case_27_an_edit_of_the_template_does_not,
            case_33_an_edit_of_the_template_leaves_a_vmi_that_runs_alone,
            case_35_a_vmi_names_the_revision_that_it_was_made_from,
            case_36_a_vm_is_ready_while_its_vmi_is;
        strategies:
            case_28_a_vm_that_is_deleted_takes_its_vmi_along,
            case_30_a_vmi_that_somebody_deletes_comes_back,
            case_32_a_vm_starts_and_stops_time_and_again,
            case_34_a_vm_outlives_its_guest_s_power_off,
            case_39_a_vm_is_made_in_either_version,
            case_40_a_machine_that_cannot_start_is_given_time;
        troubles:
            case_38_a_vm_says_that_its_image_cannot_be_had;
    }
}

/// In every run, for all the others: with KVM too.
#[test]
fn lab_case_10_a_vmi_may_start_paused() {
    instances::case_10_a_vmi_may_start_paused(&place::Place::lab().unwrap());
}

/// With a whole distribution, which takes minutes to set up and to boot.
const OF_A_DISTRIBUTION: &str = "case_06_a_guest_s_ssh_server_is_reached_by_port_forward";

mod full_distribution {
    use crate::place::Place;
    use crate::ports;

    #[test]
    fn cluster_case_06_a_guest_s_ssh_server_is_reached_by_port_forward() {
        let place = Place::cluster_with(&ports::mirror()).unwrap();
        ports::case_06_a_guest_s_ssh_server_is_reached_by_port_forward(&place);
    }

    #[test]
    fn local_case_06_a_guest_s_ssh_server_is_reached_by_port_forward() {
        let place = Place::local_with(&ports::mirror()).unwrap();
        ports::case_06_a_guest_s_ssh_server_is_reached_by_port_forward(&place);
    }
}

/// Those that are about machines' pods, which only a real node has.
macro_rules! in_pods {
    ($($case:ident),+) => {
        /// Their names.
        const CASES_IN_PODS: &[&str] = &[$(stringify!($case)),+];

        mod full_pods {
            $(#[test] fn $case() { crate::pods::$case(&rvm_e2e::installed::Installed::start(&[]).unwrap()); })+
        }
    };
}

in_pods! {
    case_11_annotations_reach_the_pod,
    case_12_who_has_an_external_strategy_is_not_evicted_but_told,
    case_31_a_vm_makes_another_vmi_of_one_whose_pod_is_deleted,
    case_42_a_service_reaches_a_vmi_by_its_labels,
    case_45_masquerade_connects_the_guest_both_ways,
    case_46_a_pod_s_process_has_no_capability
}

#[test]
fn the_table_says_what_passes_and_nothing_else() {
    let table = include_str!("../../CONFORMANCE.md");
    let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| ")).collect();
    // Of the row of a case: passed in local mode, passed in a cluster.
    let passed = |local: bool| {
        let rows = rows
            .iter()
            .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let rows =
            rows.filter(|cells| cells.len() > 3 && cells[3] == "passed" && (cells[2] == "passed") == local);
        let mut numbers: Vec<u32> = rows.map(|cells| cells[0].parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let numbers = |cases: Vec<&&str>| {
        let number = |case: &&str| case.strip_prefix("case_").unwrap()[..2].parse().unwrap();
        let mut numbers: Vec<u32> = cases.into_iter().map(number).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(
        passed(true),
        numbers(CASES.iter().chain([&OF_A_DISTRIBUTION]).collect())
    );
    assert_eq!(passed(false), numbers(CASES_IN_PODS.iter().collect()));
}
