//! Who the guest is: its host name, and the greeting that says which image it runs.

use rvm_guest_init::release::Release;

use crate::cmdline::Options;
use crate::say;

/// Sets the host name that the kernel's command line gives.
pub fn take_name(options: &Options) {
    let name = options.hostname.as_deref().unwrap_or("rvm");
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        say::problem("cannot set the host name", error);
    }
}

/// Says what is running.
pub fn greet() {
    let name = Release::read().value("PRETTY_NAME");
    let name = name.unwrap_or_else(|| "a container image".to_owned());
    say::line(&format!("\nThis is {name}, run by rvm as a virtual machine.\n"));
}
