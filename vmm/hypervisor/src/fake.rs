//! A scripted VM, so that everything above the hypervisor is tested on any host.
//!
//! Each vCPU plays its script: every [`Act`] is handed to the [`ExitHandler`] as a guest's exit would be.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::{
    Created, Entry, ExitHandler, Facts, HypervisorError, Interrupts, Message, Mmu, Next, Vcpu, Vm, sbi,
};

/// One thing that a scripted guest does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Reads this many bytes of a device; what it got is in [`FakeVm::reads`].
    Read(u64, usize),
    /// Writes to a device.
    Write(u64, Vec<u8>),
    /// Calls the firmware; what it got is in [`FakeVm::answers`].
    Sbi(sbi::Call),
    /// Reads its `seed` CSR; what it got is in [`FakeVm::seeds`].
    Seed,
    /// Leaves the guest with an exit that nobody knows.
    Unknown(u32),
    /// Switches the machine off.
    Shutdown,
    /// Resets the machine.
    Reset,
    /// Does what the host cannot emulate.
    Fault,
}

/// What a scripted VM saw.
#[derive(Debug, Default)]
pub struct FakeVm {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    pulses: Vec<u32>,
    externals: Vec<(usize, bool)>,
    reads: Vec<Vec<u8>>,
    answers: Vec<Option<sbi::Answer>>,
    entries: Vec<Entry>,
    levels: Vec<(u32, bool)>,
    doorbells: Vec<(u64, Option<u32>)>,
    attached: Vec<u32>,
    messages: Vec<(u32, Message)>,
    seeds: Vec<u16>,
    roms: Vec<(usize, bool)>,
}

struct FakeVcpu {
    vm: Arc<FakeVm>,
    script: VecDeque<Act>,
}

/// CPUs as an emulated host with AIA offers them.
pub fn facts() -> Facts {
    Facts {
        timebase_hz: 10_000_000,
        isa: vec![
            "i", "m", "a", "f", "d", "c", "zicntr", "zicsr", "zifencei", "zba", "zbb", "ssaia", "sstc",
        ],
        mmu: Some(Mmu::Sv57),
        cbom_block: None,
        cboz_block: None,
        cbop_block: None,
        interrupts: Interrupts::Aia { ids: 255, sound: 255 },
    }
}

/// A VM with one vCPU for each script.
pub fn create(facts: Facts, scripts: Vec<Vec<Act>>) -> (Arc<FakeVm>, Created) {
    let vm = Arc::new(FakeVm::default());
    let vcpu = |script: Vec<Act>| -> Box<dyn Vcpu> {
        Box::new(FakeVcpu {
            vm: Arc::clone(&vm),
            script: script.into(),
        })
    };
    let vcpus = scripts.into_iter().map(vcpu).collect();
    let created = Created {
        vm: Arc::<FakeVm>::clone(&vm),
        vcpus,
        facts,
    };
    (vm, created)
}

// === impl FakeVm ===

impl FakeVm {
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wired sources in the order in which they were pulsed.
    pub fn pulses(&self) -> Vec<u32> {
        self.seen(|seen| seen.pulses.clone())
    }

    /// What was read, in order.
    pub fn reads(&self) -> Vec<Vec<u8>> {
        self.seen(|seen| seen.reads.clone())
    }

    /// What the firmware answered, in order.
    pub fn answers(&self) -> Vec<Option<sbi::Answer>> {
        self.seen(|seen| seen.answers.clone())
    }

    /// Where vCPUs were told to start.
    pub fn entries(&self) -> Vec<Entry> {
        self.seen(|seen| seen.entries.clone())
    }

    /// Changes of level-triggered sources, in order.
    pub fn levels(&self) -> Vec<(u32, bool)> {
        self.seen(|seen| seen.levels.clone())
    }

    /// The doorbells that are bound: where, and on which value.
    pub fn doorbells(&self) -> Vec<(u64, Option<u32>)> {
        self.seen(|seen| seen.doorbells.clone())
    }

    /// The numbers of messages that have an event.
    pub fn attached(&self) -> Vec<u32> {
        self.seen(|seen| seen.attached.clone())
    }

    /// The messages that were routed, in order.
    pub fn messages(&self) -> Vec<(u32, Message)> {
        self.seen(|seen| seen.messages.clone())
    }

    /// What the `seed` CSR gave, in order.
    pub fn seeds(&self) -> Vec<u16> {
        self.seen(|seen| seen.seeds.clone())
    }

    /// Which ROMs were shown and hidden, in order.
    pub fn roms(&self) -> Vec<(usize, bool)> {
        self.seen(|seen| seen.roms.clone())
    }

    /// Changes of external interrupts, in order.
    pub fn externals(&self) -> Vec<(usize, bool)> {
        self.seen(|seen| seen.externals.clone())
    }
}

impl Vm for FakeVm {
    fn pulse(&self, source: u32) {
        self.seen(|seen| seen.pulses.push(source));
    }

    fn set_external(&self, vcpu: usize, high: bool) {
        self.seen(|seen| seen.externals.push((vcpu, high)));
    }

    fn show_rom(&self, rom: usize, shown: bool) -> Result<(), HypervisorError> {
        self.seen(|seen| seen.roms.push((rom, shown)));
        Ok(())
    }

    fn set_level(&self, source: u32, high: bool) {
        self.seen(|seen| seen.levels.push((source, high)));
    }

    fn bind_doorbell(
        &self,
        address: u64,
        value: Option<u32>,
        _event: &EventFd,
    ) -> Result<(), HypervisorError> {
        self.seen(|seen| seen.doorbells.push((address, value)));
        Ok(())
    }

    fn unbind_doorbell(&self, address: u64, value: Option<u32>, _event: &EventFd) {
        self.seen(|seen| seen.doorbells.retain(|bound| *bound != (address, value)));
    }

    fn attach_message(&self, number: u32, _event: &EventFd) -> Result<(), HypervisorError> {
        self.seen(|seen| seen.attached.push(number));
        Ok(())
    }

    fn route_message(&self, number: u32, message: Message) -> Result<(), HypervisorError> {
        self.seen(|seen| seen.messages.push((number, message)));
        Ok(())
    }

    fn detach_message(&self, number: u32, _event: &EventFd) {
        self.seen(|seen| seen.attached.retain(|attached| *attached != number));
    }
}

// === impl FakeVcpu ===

impl Vcpu for FakeVcpu {
    fn set_entry(&mut self, entry: Entry) -> Result<(), HypervisorError> {
        self.vm.seen(|seen| seen.entries.push(entry));
        Ok(())
    }

    fn run(&mut self, exits: &mut dyn ExitHandler) -> Result<Next, HypervisorError> {
        match self.script.pop_front() {
            Some(Act::Read(address, len)) => {
                let mut data = vec![0; len];
                exits.mmio_read(address, &mut data);
                self.vm.seen(|seen| seen.reads.push(data));
            }
            Some(Act::Write(address, data)) => exits.mmio_write(address, &data),
            Some(Act::Sbi(call)) => {
                let answer = exits.sbi(&call);
                self.vm.seen(|seen| seen.answers.push(answer));
            }
            Some(Act::Seed) => {
                let seed = exits.seed();
                self.vm.seen(|seen| seen.seeds.push(seed));
            }
            Some(Act::Unknown(reason)) => exits.unknown(reason),
            Some(Act::Shutdown) => return Ok(Next::Shutdown),
            Some(Act::Reset) => return Ok(Next::Reset),
            Some(Act::Fault) => {
                return Err(HypervisorError::GuestFault(
                    std::io::ErrorKind::Unsupported.into(),
                ));
            }
            // The script is over: the guest waits for an interrupt that never comes.
            None => {
                std::thread::sleep(std::time::Duration::from_millis(1));
                return Ok(Next::Interrupted);
            }
        }
        Ok(Next::Continue)
    }
}
