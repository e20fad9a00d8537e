//! Bodies of tests about a machine that starts paused.

use rvm_outer::Host;
use rvm_outer::shell::{PATIENCE, until_ready};
use rvmm_spec::OnStart;

use crate::boot::{ctl, guest, put};

/// It stands still once it is there.
const UNTIL_PAUSED: &str = "for n in $(seq 600); do rvmm ctl --run-dir vm info | grep -q '^state *paused' && exit 0; \
                            sleep 0.1; done; exit 1";

/// Nothing runs in it before it is resumed.
pub fn begins_when_it_is_resumed(host: &dyn Host) {
    put(host, guest(host, "quiet").on_start(OnStart::Pause));
    let argv = ["rvmm", "--spec", "vm.json", "--run-dir", "vm"];
    let mut vm = host.spawn_on_terminal(&argv).expect("rvmm starts");
    let stands = host.run(&["sh", "-c", UNTIL_PAUSED]).expect("a shell runs");
    stands.ok().expect("the machine stands still");
    assert!(ctl(host, &["-o", "json", "stats"]).contains(r#""console.output-bytes":0"#));
    assert_eq!(ctl(host, &["resume"]), "");
    until_ready(&mut vm);
    assert_eq!(ctl(host, &["kill"]), "");
    assert_eq!(vm.wait(PATIENCE).expect("rvmm ends").status(), Some(0));
}
