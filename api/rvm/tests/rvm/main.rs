//! The real program, as a user types it: its words, its verbs against a server, its console on a terminal.

mod completion;
mod console;
mod credentials;
mod expose;
mod images;
mod kubernetes;
mod lab;
mod logs;
mod machine;
mod ports;
mod terminal;
mod top;
mod verbs;
mod words;
