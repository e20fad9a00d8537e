//! KubeVirt's conformance cases, under their numbers.
//!
//! Each is what a KubeVirt user may rely on, told as one test. It is carried out twice: in a cluster, with a real kube-apiserver and
//! our API server behind its aggregation, and in local mode, with the embedded API.
//! `tests/e2e/CONFORMANCE.md` lists all 53, also those that are not here and why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloud_init;
mod consoles;
mod endings;
mod instances;
mod machines;
mod place;
mod strategies;
mod troubles;

/// Each case in a cluster, under the name that says how often, and in local mode.
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
    };
}

everywhere! {
    // In every run: one of each kind, which the others are like.
    cluster {
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

#[test]
fn the_table_says_what_passes_and_nothing_else() {
    let table = include_str!("../../CONFORMANCE.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let passed = |row: &&str| row.split('|').filter(|cell| cell.trim() == "passed").count() == 2;
    let number = |row: &str| row.split('|').next().unwrap().trim().parse().unwrap();
    let mut passed: Vec<u32> = rows.filter(passed).map(number).collect();
    let number = |case: &&str| case.strip_prefix("case_").unwrap()[..2].parse().unwrap();
    let mut cases: Vec<u32> = CASES.iter().map(number).collect();
    passed.sort_unstable();
    cases.sort_unstable();
    assert_eq!(passed, cases);
}
