//! The guest's ends of the console hub (the UART, or the virtio console) and of the agent's dialogue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rvmm_backends::agent::{self, Agent};
use rvmm_backends::console::{GuestInput, Hub};
use rvmm_devices::ConsoleOutput;
use rvmm_devices::uart::{InputRoom, Uart};
use rvmm_devices::virtio::Core;
use rvmm_devices::virtio::console::{Console, InputSource, Port};

/// Most input bytes that wait for a virtio console.
const MAX_WAITING: usize = 4096;

/// The hub, as devices print to it.
pub struct Screen(pub Hub);

/// The UART's FIFO, as the hub types into it.
pub struct UartInput(pub Arc<Mutex<Uart>>);

/// The virtio console's receive queue, as the hub types into it.
pub struct VirtioInput {
    /// What was typed.
    pub typed: Typed,
    /// The console.
    pub core: Arc<Mutex<Core>>,
}

/// Input between the hub and a virtio console.
#[derive(Clone)]
pub struct Typed {
    waiting: Arc<Mutex<VecDeque<u8>>>,
    hub: Hub,
}

impl ConsoleOutput for Screen {
    fn write(&self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

impl InputRoom for Screen {
    fn input_room(&self) {
        self.0.input_room();
    }
}

impl GuestInput for UartInput {
    fn push(&mut self, bytes: &[u8]) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_input(bytes)
    }
}

impl GuestInput for VirtioInput {
    fn push(&mut self, bytes: &[u8]) -> usize {
        let mut waiting = self.typed.waiting();
        let room = MAX_WAITING.saturating_sub(waiting.len()).min(bytes.len());
        waiting.extend(bytes.iter().take(room));
        drop(waiting);
        self.core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .run_queue(Console::RECEIVE);
        room
    }
}

/// The agent's port of the virtio console.
pub struct AgentPort(pub Agent);

impl InputSource for AgentPort {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.0.read(buffer)
    }
}

impl Port for AgentPort {
    fn name(&self) -> &'static str {
        agent::NAME
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.0.hear(bytes);
    }

    fn opened(&mut self, open: bool) {
        self.0.set_open(open);
    }
}

// === impl Typed ===

impl Typed {
    /// Nothing yet.
    pub fn new(hub: Hub) -> Self {
        Self {
            waiting: Arc::default(),
            hub,
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InputSource for Typed {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut waiting = self.waiting();
        let count = waiting.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(waiting.drain(..count)) {
            *to = from;
        }
        drop(waiting);
        self.hub.input_room();
        count
    }
}
