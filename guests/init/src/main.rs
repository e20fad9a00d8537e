//! The first process of a guest whose root file system is a container image.
//!
//! Such an image has no kernel and often no init. The handler boots our kernel with an initramfs of two archives: this
//! program as `/rvm-init` with the kernel's modules, and the image's files. From then on:
//!
//! 1. the kernel starts us as process 1 and we give the guest what a container runtime would have given it: `/proc`,
//!    `/sys`, `/dev`, `/run`, `/tmp` ([`mounts`]), its disks' and network's modules ([`modules`]), its host name and a
//!    loopback ([`identity`], [`loopback`]), and its interfaces ask for their addresses ([`network`], [`lease`], [`lease6`])
//!    and for who knows names ([`resolver`]);
//! 2. we start the image's shell on the console, as a login session with job control ([`session`]), and again when it
//!    ends;
//! 3. we bury every orphan, and end the machine when asked: `poweroff`, `reboot` and `halt` of any busybox ask by
//!    signal ([`life`]).
//!
//! Process 1 must never end, whatever is in the image: the kernel would panic. So nothing here gives up; what does
//! not work is said on the console and gone on without.

mod cmdline;
mod identity;
mod lease;
mod lease6;
mod life;
mod loopback;
mod modules;
mod mounts;
mod netlink;
mod network;
mod resolver;
mod say;
mod session;

use std::process::ExitCode;

use rvm_guest_init::exec;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == session::WORD => return session::become_it(arguments),
        Some(first) if first == network::WORD => return network::become_it(arguments),
        Some(first) if first == exec::WORD => return exec::become_it(arguments),
        _ => {}
    }
    if !rustix::process::getpid().is_init() {
        say::line("this is the first process of a guest and nothing else");
        return ExitCode::FAILURE;
    }
    mounts::mount_all();
    say::to_console();
    let options = cmdline::read();
    modules::load_all();
    identity::take_name(&options);
    loopback::bring_up();
    network::bring_up();
    identity::greet();
    life::live(&options)
}
