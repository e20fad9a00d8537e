//! What is promised of run directories: what is seen is what is there, whatever was left behind.

use super::adopt::ObserveError;
use super::*;
use crate::sample::{UID, id};
use crate::vm::Machine;
use rvmm_control::{EndReason, Ending};
use rvmm_spec::Boot;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// A handler's directories, for the length of a test.
struct Bench {
    folder: tempfile::TempDir,
    machines: Machines,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machines = open(folder.path(), "home");
        Self { folder, machines }
    }

    fn prepared() -> Self {
        let place = Self::new();
        let spec = Spec::builder(Boot::new("/Image")).uid(UID).build().unwrap();
        place.machines.lay_out(&id(), &spec, &[]).unwrap();
        place
    }

    fn run(&self) -> RunDir {
        self.machines.run_dir(&id())
    }

    fn seen(&self) -> Machine {
        self.machines.observe(&id()).unwrap()
    }
}

fn open(folder: &Path, home: &str) -> Machines {
    let place = Place::take(&folder.join("run"), &folder.join("state")).unwrap();
    Machines::open(place, "/bin/false".into(), home.to_owned()).unwrap()
}

fn ending(reason: EndReason) -> Ending {
    Ending {
        reason,
        message: "told".into(),
    }
}

#[test]
fn nothing_there_is_absent() {
    assert_eq!(Bench::new().seen(), Machine::Absent);
}

#[test]
fn what_was_laid_out_is_prepared_and_readable_by_rvmm() {
    let place = Bench::prepared();
    assert_eq!(place.seen(), Machine::Prepared);
    let spec = Document::parse(&fs::read(place.run().spec()).unwrap()).unwrap();
    assert_eq!(spec.uid(), Some(UID));
    assert_eq!(place.machines.all().unwrap(), [id()].into());
}

#[test]
fn a_start_that_is_under_way_is_neither_prepared_nor_lost() {
    let place = Bench::prepared();
    let output = File::create(log(&place.run())).unwrap();
    output.lock().unwrap();
    assert!(matches!(place.seen(), Machine::Launching(_)));
    drop(output);
    assert_eq!(place.seen(), Machine::Prepared);
}

#[test]
fn a_start_is_not_begun_twice() {
    let place = Bench::prepared();
    let output = File::create(log(&place.run())).unwrap();
    output.lock().unwrap();
    assert!(matches!(
        place.machines.start(&id(), None),
        Err(spawn::SpawnError::Already)
    ));
}

#[test]
fn a_held_directory_without_a_socket_is_silent() {
    let place = Bench::prepared();
    let _lock = place.run().claim().unwrap();
    assert_eq!(place.seen(), Machine::Silent);
}

#[test]
fn a_socket_that_nobody_serves_any_more_is_silent() {
    let place = Bench::prepared();
    let _lock = place.run().claim().unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.run().control_socket()).unwrap());
    assert_eq!(place.seen(), Machine::Silent);
}

#[test]
fn a_machine_that_told_its_end_has_ended() {
    let place = Bench::prepared();
    let lock = place.run().claim().unwrap();
    place
        .run()
        .write_ending(&lock, &ending(EndReason::Poweroff))
        .unwrap();
    drop(lock);
    assert_eq!(place.seen(), Machine::Ended(ending(EndReason::Poweroff)));
}

#[test]
fn a_machine_that_is_gone_without_a_word_is_lost_whoever_has_its_pid_now() {
    let place = Bench::prepared();
    drop(place.run().claim().unwrap());
    assert_eq!(place.seen(), Machine::Lost);
}

#[test]
fn a_child_that_never_came_up_has_an_ending_with_its_last_words() {
    let place = Bench::prepared();
    fs::write(log(&place.run()), "warming up\nno such kernel\n\n").unwrap();
    place.machines.settle(&id(), Ok(ExitStatus::from_raw(1 << 8)));
    let told = Ending {
        reason: EndReason::Failed,
        message: "rvmm ended with status 1: no such kernel".into(),
    };
    assert_eq!(place.seen(), Machine::Ended(told));
}

#[test]
fn a_child_that_told_its_end_keeps_it() {
    let place = Bench::prepared();
    let lock = place.run().claim().unwrap();
    place
        .run()
        .write_ending(&lock, &ending(EndReason::Poweroff))
        .unwrap();
    drop(lock);
    place.machines.settle(&id(), Ok(ExitStatus::from_raw(9)));
    assert_eq!(place.seen(), Machine::Ended(ending(EndReason::Poweroff)));
}

#[test]
fn a_stop_is_noted_even_where_nothing_runs() {
    let place = Bench::prepared();
    place.machines.stop(&id(), Duration::ZERO).unwrap();
    assert!(place.machines.stop_requested(&id()));
    place.machines.settle(&id(), Ok(ExitStatus::from_raw(9)));
    assert!(matches!(place.seen(), Machine::Ended(ending) if ending.reason == EndReason::Killed));
}

#[test]
fn what_was_made_for_another_node_or_cluster_is_left_alone() {
    let Bench { folder, machines } = Bench::prepared();
    drop(machines);
    let others = open(folder.path(), "another home");
    assert!(matches!(others.observe(&id()), Err(ObserveError::NotOurs(_, home)) if home == "home"));
    assert!(others.all().unwrap().is_empty());
}

#[test]
fn half_made_directories_are_cleared_away_at_the_start() {
    let Bench { folder, machines } = Bench::new();
    drop(machines);
    let half = folder.path().join("run").join(format!("{UNFINISHED}{UID}"));
    fs::create_dir(&half).unwrap();
    let again = open(folder.path(), "home");
    assert!(!half.exists());
    assert!(again.all().unwrap().is_empty());
}

#[test]
fn an_empty_disk_keeps_what_a_guest_wrote() {
    let place = Bench::new();
    let path = place.machines.empty_disk(&id(), "data", 4096).unwrap();
    fs::write(&path, "written").unwrap();
    assert_eq!(place.machines.empty_disk(&id(), "data", 4096).unwrap(), path);
    let content = fs::read(&path).unwrap();
    assert_eq!((&content[..7], content.len()), (b"written".as_slice(), 4096));
    place.machines.remove(&id()).unwrap();
    assert!(!path.exists());
}

#[test]
fn the_files_of_a_living_machine_are_not_removed() {
    let place = Bench::prepared();
    let lock = place.run().claim().unwrap();
    assert!(place.machines.remove(&id()).is_err());
    assert!(place.run().spec().exists());
    drop(lock);
    place.machines.remove(&id()).unwrap();
    assert_eq!(place.seen(), Machine::Absent);
}

#[test]
fn rvmms_own_log_does_not_grow_without_end() {
    let place = Bench::prepared();
    let path = log(&place.run());
    File::create(&path).unwrap().set_len(2 << 20).unwrap();
    place.machines.bound_log(&id());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn disks_without_a_run_directory_are_found_and_removed() {
    let place = Bench::prepared();
    place.machines.empty_disk(&id(), "data", 4096).unwrap();
    fs::remove_dir_all(place.run().path()).unwrap();
    assert_eq!(place.machines.all().unwrap(), [id()].into());
    assert_eq!(place.machines.count(), 0);
    place.machines.remove(&id()).unwrap();
    assert!(place.machines.all().unwrap().is_empty());
    assert!(!place.folder.path().join("state/disks").join(UID).exists());
}

#[test]
fn anothers_files_are_not_removed() {
    let Bench { folder, machines } = Bench::prepared();
    drop(machines);
    let others = open(folder.path(), "another home");
    others.remove(&id()).unwrap();
    assert!(others.run_dir(&id()).spec().exists());
}

/// Starts a program that takes the start's lock as rvmm does, and never its run directory.
fn hang(place: &Bench) -> std::process::Child {
    let output = File::options()
        .append(true)
        .create(true)
        .open(log(&place.run()))
        .unwrap();
    output.try_lock().unwrap();
    let mut command = std::process::Command::new("sleep");
    command
        .arg("1000")
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    command.spawn().unwrap()
}

#[test]
fn an_rvmm_that_hangs_before_it_comes_up_is_ended_and_has_failed() {
    let place = Bench::prepared();
    let mut child = hang(&place);
    assert!(matches!(place.seen(), Machine::Launching(_)));
    place.machines.give_up(&id(), Duration::from_secs(120)).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let told = Ending {
        reason: EndReason::Failed,
        message: "rvmm did not come up within 120 s and was killed".into(),
    };
    assert_eq!(place.seen(), Machine::Ended(told));
}

#[test]
fn one_that_came_up_meanwhile_is_not_given_up() {
    let place = Bench::prepared();
    let lock = place.run().claim().unwrap();
    place.machines.give_up(&id(), Duration::ZERO).unwrap();
    assert_eq!(place.seen(), Machine::Silent);
    drop(lock);
}

#[test]
fn a_stop_while_an_ending_is_noted_does_not_end_the_handler() {
    let place = Bench::prepared();
    // As `settle` holds it.
    let _lock = place.run().claim().unwrap();
    place.machines.stop(&id(), Duration::ZERO).unwrap();
}
