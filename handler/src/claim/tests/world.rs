//! Two handlers, a store that compares and swaps, and nothing else that is real: who does what next is the test's
//! choice, one step at a time, and a handler may be killed between any two.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use rvm_types::{Phase, VirtualMachineInstance};
use rvmm_control::{EndReason, Ending, State};
use serde_json::{Value, json};

use crate::plan::{Berth, Me, Seen, Step, plan, write};
use crate::sample;
use crate::vm::{Machine, VmId};
use crate::volumes::claims::Fit;

pub const NODES: [&str; 2] = ["a", "b"];
pub const VMS: usize = 2;
const STALE: Duration = Duration::from_secs(300);

/// What happens next.
#[derive(Debug, Clone)]
pub enum Act {
    /// A watch event reaches a handler.
    Hear { handler: usize, vm: usize },
    /// A handler does the next step of its plan, or makes one.
    Step { handler: usize, vm: usize },
    /// A handler writes its heartbeat.
    Beat { handler: usize },
    /// A handler is killed.
    Kill { handler: usize },
    /// It is started again on the same disk.
    Restart { handler: usize },
    /// Time passes.
    Pass { seconds: u32 },
}

/// Any order of events.
pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (handler, vm) = (0..NODES.len(), 0..VMS);
    let act = prop_oneof![
        6 => (handler.clone(), vm.clone()).prop_map(|(handler, vm)| Act::Step { handler, vm }),
        4 => (handler.clone(), vm).prop_map(|(handler, vm)| Act::Hear { handler, vm }),
        1 => handler.clone().prop_map(|handler| Act::Beat { handler }),
        1 => handler.clone().prop_map(|handler| Act::Kill { handler }),
        1 => handler.prop_map(|handler| Act::Restart { handler }),
        1 => (1u32..700).prop_map(|seconds| Act::Pass { seconds }),
    ];
    proptest::collection::vec(act, 0..150)
}

struct Handler {
    alive: bool,
    beat: Timestamp,
    /// Survives the handler, as run directories do.
    machines: [Machine; VMS],
    /// What it last heard of each VMI.
    heard: [VirtualMachineInstance; VMS],
    /// The VMI that its plan stands on, and what is left of the plan.
    planned: [VirtualMachineInstance; VMS],
    todo: [Vec<Step>; VMS],
}

pub struct World {
    now: Timestamp,
    objects: [Value; VMS],
    version: u64,
    handlers: [Handler; 2],
    /// How often each VM was started, over all nodes.
    pub starts: [usize; VMS],
}

fn vmi(vm: usize) -> VirtualMachineInstance {
    let mut vmi = sample::vmi_with(json!({}));
    vmi.metadata.name = Some(format!("vm{vm}"));
    vmi.metadata.uid = Some(format!("6f9619ff-8b86-4d01-b42d-00cf4fc9640{vm}"));
    vmi.metadata.resource_version = Some("0".to_owned());
    vmi
}

// === impl World ===

impl World {
    pub fn new() -> Self {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let handler = || Handler {
            alive: true,
            beat: now,
            machines: [Machine::Absent, Machine::Absent],
            heard: [vmi(0), vmi(1)],
            planned: [vmi(0), vmi(1)],
            todo: [vec![], vec![]],
        };
        Self {
            now,
            objects: [json!(vmi(0)), json!(vmi(1))],
            version: 0,
            handlers: [handler(), handler()],
            starts: [0; VMS],
        }
    }

    pub fn act(&mut self, act: &Act) {
        match *act {
            Act::Hear { handler, vm } => self.hear(handler, vm),
            Act::Step { handler, vm } if self.handlers[handler].alive => self.step(handler, vm),
            Act::Beat { handler } if self.handlers[handler].alive => self.handlers[handler].beat = self.now,
            Act::Kill { handler } => {
                self.handlers[handler].alive = false;
                self.handlers[handler].todo = [vec![], vec![]];
            }
            Act::Restart { handler } => {
                self.handlers[handler].alive = true;
                self.handlers[handler].beat = self.now;
            }
            Act::Pass { seconds } => self.now += Duration::from_secs(seconds.into()),
            Act::Step { .. } | Act::Beat { .. } => {}
        }
    }

    /// Lets these handlers work until nothing is left to do.
    pub fn settle(&mut self, handlers: &[usize]) {
        for _ in 0..25 {
            for &handler in handlers {
                self.act(&Act::Restart { handler });
                for vm in 0..VMS {
                    self.hear(handler, vm);
                    self.act(&Act::Step { handler, vm });
                }
            }
            self.act(&Act::Pass { seconds: 60 });
        }
    }

    pub fn phase(&self, vm: usize) -> Option<Phase> {
        self.object(vm).phase().cloned()
    }

    pub fn node(&self, vm: usize) -> Option<String> {
        self.object(vm).node_name().map(str::to_owned)
    }

    fn object(&self, vm: usize) -> VirtualMachineInstance {
        serde_json::from_value(self.objects[vm].clone()).unwrap()
    }

    fn hear(&mut self, handler: usize, vm: usize) {
        self.handlers[handler].heard[vm] = self.object(vm);
    }

    fn me(&self, handler: usize) -> Me {
        Me {
            node: NODES[handler].to_owned(),
            handler: format!("handler-of-{}", NODES[handler]),
            labels: BTreeMap::new(),
            cordoned: false,
            stale_after: STALE,
            in_pods: false,
        }
    }

    fn step(&mut self, handler: usize, vm: usize) {
        if self.handlers[handler].todo[vm].is_empty() {
            let me = self.me(handler);
            let own = &self.handlers[handler];
            let vmi = &own.heard[vm];
            let owner = NODES.iter().position(|node| Some(*node) == vmi.node_name());
            let seen = Seen {
                machine: own.machines[vm].clone(),
                stop_requested: false,
                owner_heartbeat: owner.map(|owner| self.handlers[owner].beat),
                retry_at: None,
                network: None,
                facts: None,
                attempts: Default::default(),
                claims: Fit::Here,
                berth: Berth::Anywhere,
            };
            let steps = plan(&VmId::of(vmi).unwrap(), vmi, &seen, &me, self.now);
            self.handlers[handler].planned[vm] = self.handlers[handler].heard[vm].clone();
            self.handlers[handler].todo[vm] = steps;
        } else {
            let step = self.handlers[handler].todo[vm].remove(0);
            self.perform(handler, vm, &step);
        }
    }

    fn perform(&mut self, handler: usize, vm: usize, step: &Step) {
        let machine = &mut self.handlers[handler].machines[vm];
        match step {
            Step::Prepare => *machine = Machine::Prepared,
            // The same that spawn's lock does: of a directory that was started in nothing is started again.
            Step::Start if *machine == Machine::Prepared => {
                *machine = Machine::Alive(sample::info(State::Running));
                self.starts[vm] += 1;
            }
            Step::Stop => {
                *machine = Machine::Ended(Ending {
                    reason: EndReason::Killed,
                    message: String::new(),
                });
            }
            Step::RemoveRunDir => *machine = Machine::Absent,
            Step::Plug(_) | Step::Unplug(_) => unreachable!("no VMI here has volumes that come and go"),
            Step::Start | Step::GiveUp | Step::Announce(_) | Step::Wait(_) => {}
            Step::Claim | Step::Reclaim | Step::HandOver | Step::Report(_) | Step::Release => {
                self.write(handler, vm, step);
            }
        }
    }

    fn write(&mut self, handler: usize, vm: usize, step: &Step) {
        let me = self.me(handler);
        let vmi = &self.handlers[handler].planned[vm];
        let Some((patch, _)) = write(step, vmi, &me, self.now) else {
            return;
        };
        if patch["metadata"]["resourceVersion"] == self.objects[vm]["metadata"]["resourceVersion"] {
            json_patch::merge(&mut self.objects[vm], &patch);
            self.version += 1;
            self.objects[vm]["metadata"]["resourceVersion"] = json!(self.version.to_string());
            // The answer to a write is the newest that a handler knows.
            self.hear(handler, vm);
            self.handlers[handler].planned[vm] = self.object(vm);
        } else {
            self.handlers[handler].todo[vm].clear();
        }
    }
}
