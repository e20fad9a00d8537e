//! What is promised of run directories: what is seen is what is there, whatever was left behind.

use super::adopt::ObserveError;
use super::*;
use crate::sample::{UID, id};
use crate::vm::Machine;
use rvmm_control::{EndReason, Ending};
use rvmm_spec::Boot;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

struct Place {
    folder: tempfile::TempDir,
    machines: Machines,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machines = open(folder.path(), "home").unwrap();
        Self { folder, machines }
    }

    fn prepared() -> Self {
        let place = Self::new();
        let spec = Spec::builder(Boot::new("/Image")).uid(UID).build().unwrap();
        place.machines.lay_out(&id(), &spec).unwrap();
        place
    }

    fn run(&self) -> RunDir {
        self.machines.run_dir(&id())
    }

    fn seen(&self) -> Machine {
        self.machines.observe(&id()).unwrap()
    }
}

fn open(folder: &Path, home: &str) -> Result<Machines, OpenError> {
    Machines::open(
        &folder.join("run"),
        &folder.join("state"),
        "/bin/false".into(),
        home.to_owned(),
    )
}

fn ending(reason: EndReason) -> Ending {
    Ending {
        reason,
        message: "told".into(),
    }
}

#[test]
fn nothing_there_is_absent() {
    assert_eq!(Place::new().seen(), Machine::Absent);
}

#[test]
fn what_was_laid_out_is_prepared_and_readable_by_rvmm() {
    let place = Place::prepared();
    assert_eq!(place.seen(), Machine::Prepared);
    let spec = Document::parse(&fs::read(place.run().spec()).unwrap()).unwrap();
    assert_eq!(spec.uid(), Some(UID));
    assert_eq!(place.machines.all().unwrap(), [id()]);
}

#[test]
fn a_start_that_is_under_way_is_neither_prepared_nor_lost() {
    let place = Place::prepared();
    let output = File::create(log(&place.run())).unwrap();
    output.lock().unwrap();
    assert_eq!(place.seen(), Machine::Launching);
    drop(output);
    assert_eq!(place.seen(), Machine::Prepared);
}

#[test]
fn a_start_is_not_begun_twice() {
    let place = Place::prepared();
    let output = File::create(log(&place.run())).unwrap();
    output.lock().unwrap();
    assert!(matches!(
        place.machines.start(&id()),
        Err(spawn::SpawnError::Already)
    ));
}

#[test]
fn a_held_directory_without_a_socket_is_silent() {
    let place = Place::prepared();
    let _lock = place.run().claim().unwrap();
    assert_eq!(place.seen(), Machine::Silent);
}

#[test]
fn a_socket_that_nobody_serves_any_more_is_silent() {
    let place = Place::prepared();
    let _lock = place.run().claim().unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.run().control_socket()).unwrap());
    assert_eq!(place.seen(), Machine::Silent);
}

#[test]
fn a_machine_that_told_its_end_has_ended() {
    let place = Place::prepared();
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
    let place = Place::prepared();
    drop(place.run().claim().unwrap());
    assert_eq!(place.seen(), Machine::Lost);
}

#[test]
fn a_child_that_never_came_up_has_an_ending_with_its_last_words() {
    let place = Place::prepared();
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
    let place = Place::prepared();
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
    let place = Place::prepared();
    place.machines.stop(&id()).unwrap();
    assert!(place.machines.stop_requested(&id()));
    place.machines.settle(&id(), Ok(ExitStatus::from_raw(9)));
    assert!(matches!(place.seen(), Machine::Ended(ending) if ending.reason == EndReason::Killed));
}

#[test]
fn what_was_made_for_another_node_or_cluster_is_left_alone() {
    let Place { folder, machines } = Place::prepared();
    drop(machines);
    let others = open(folder.path(), "another home").unwrap();
    assert!(matches!(others.observe(&id()), Err(ObserveError::NotOurs(_, home)) if home == "home"));
    assert_eq!(others.all().unwrap(), []);
}

#[test]
fn a_second_handler_is_kept_out() {
    let place = Place::new();
    assert!(matches!(
        open(place.folder.path(), "home"),
        Err(OpenError::Taken(_))
    ));
}

#[test]
fn half_made_directories_are_cleared_away_at_the_start() {
    let Place { folder, machines } = Place::new();
    drop(machines);
    let half = folder.path().join("run").join(format!("{UNFINISHED}{UID}"));
    fs::create_dir(&half).unwrap();
    let again = open(folder.path(), "home").unwrap();
    assert!(!half.exists());
    assert_eq!(again.all().unwrap(), []);
}

#[test]
fn an_empty_disk_keeps_what_a_guest_wrote() {
    let place = Place::new();
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
    let place = Place::prepared();
    let lock = place.run().claim().unwrap();
    assert!(place.machines.remove(&id()).is_err());
    assert!(place.run().spec().exists());
    drop(lock);
    place.machines.remove(&id()).unwrap();
    assert_eq!(place.seen(), Machine::Absent);
}

#[test]
fn rvmms_own_log_does_not_grow_without_end() {
    let place = Place::prepared();
    let path = log(&place.run());
    File::create(&path).unwrap().set_len(2 << 20).unwrap();
    place.machines.bound_log(&id());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_run_directory_too_deep_for_sockets_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(100));
    let opened = Machines::open(&deep, folder.path(), "/bin/false".into(), "home".into());
    assert!(matches!(opened, Err(OpenError::TooLong(_))));
}
