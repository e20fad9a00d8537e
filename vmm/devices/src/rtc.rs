//! The goldfish real-time clock: where the guest's kernel gets the date from.
//!
//! Time is nanoseconds since 1970. Reading the low half latches the high one, so that the two belong together. The
//! guest may set the clock; it then keeps its distance to the host's. The alarm rings through the line that
//! [`Rtc::with_alarm`] is given: the timer itself belongs to whoever runs the device, who is told when to call
//! [`Rtc::alarm_reached`].

use std::sync::Arc;
use std::time::Duration;

use crate::{BusDevice, IrqLine};

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

/// Tells when the alarm shall ring: in so long from now, or never.
pub type AlarmTimer = dyn Fn(Option<Duration>) + Send;

/// The clock.
pub struct Rtc {
    clock: Box<dyn Fn() -> u64 + Send>,
    /// Guest time minus host time, modulo 2^64.
    offset: u64,
    latched_high: u32,
    alarm: u64,
    armed: bool,
    irq_enabled: bool,
    irq_pending: bool,
    wake: Option<(Arc<dyn IrqLine>, Box<AlarmTimer>)>,
}

// === impl Rtc ===

impl Rtc {
    /// A clock that shows `clock`, in nanoseconds since 1970; its alarm is stored and never rings.
    pub fn new(clock: impl Fn() -> u64 + Send + 'static) -> Self {
        Self {
            clock: Box::new(clock),
            offset: 0,
            latched_high: 0,
            alarm: 0,
            armed: false,
            irq_enabled: false,
            irq_pending: false,
            wake: None,
        }
    }

    /// Lets the alarm ring: `irq` is triggered by [`Rtc::alarm_reached`], and `timer` is called, with the device
    /// locked, each time the guest changes when that has to be.
    #[must_use]
    pub fn with_alarm(
        mut self,
        irq: Arc<dyn IrqLine>,
        timer: impl Fn(Option<Duration>) + Send + 'static,
    ) -> Self {
        self.wake = Some((irq, Box::new(timer)));
        self
    }

    /// The time that `timer` was given has come. Too early a call does nothing but set the timer again.
    pub fn alarm_reached(&mut self) {
        if self.armed && self.now() >= self.alarm {
            self.armed = false;
            self.irq_pending = true;
            self.ring();
        }
        self.set_timer();
    }

    fn now(&self) -> u64 {
        (self.clock)().wrapping_add(self.offset)
    }

    fn set_now(&mut self, now: u64) {
        self.offset = now.wrapping_sub((self.clock)());
        self.set_timer();
    }

    fn ring(&self) {
        if let Some((irq, _)) = &self.wake
            && self.irq_enabled
            && self.irq_pending
        {
            irq.trigger();
        }
    }

    fn set_timer(&self) {
        if let Some((_, timer)) = &self.wake {
            let rest = self.alarm.saturating_sub(self.now());
            timer(self.armed.then_some(Duration::from_nanos(rest)));
        }
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        match offset {
            TIME_LOW => {
                let (low, high) = halves(self.now());
                self.latched_high = high;
                low
            }
            TIME_HIGH => self.latched_high,
            ALARM_LOW => halves(self.alarm).0,
            ALARM_HIGH => halves(self.alarm).1,
            IRQ_ENABLED => u32::from(self.irq_enabled),
            ALARM_STATUS => u32::from(self.armed),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            TIME_LOW => self.set_now(with_low(self.now(), value)),
            TIME_HIGH => self.set_now(with_high(self.now(), value)),
            // The guest writes the upper half first: the lower one sets the alarm.
            ALARM_HIGH => self.alarm = with_high(self.alarm, value),
            ALARM_LOW => {
                self.alarm = with_low(self.alarm, value);
                self.armed = true;
                self.alarm_reached();
            }
            IRQ_ENABLED => {
                self.irq_enabled = value & 1 != 0;
                self.ring();
            }
            CLEAR_ALARM => {
                self.armed = false;
                self.set_timer();
            }
            CLEAR_INTERRUPT => self.irq_pending = false,
            _ => {}
        }
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) => *word = self.read_register(offset).to_le_bytes(),
            Err(_) => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Ok(&word) = <&[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(word));
        }
    }
}

/// The low and the high half.
fn halves(value: u64) -> (u32, u32) {
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}

fn with_low(value: u64, low: u32) -> u64 {
    value & !0xffff_ffff | u64::from(low)
}

fn with_high(value: u64, high: u32) -> u64 {
    value & 0xffff_ffff | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    #[derive(Default)]
    struct Bell(AtomicU32);

    impl IrqLine for Bell {
        fn trigger(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Fixture {
        host: Arc<AtomicU64>,
        bell: Arc<Bell>,
        timer: Arc<Mutex<Option<Duration>>>,
        rtc: Rtc,
    }

    fn rtc_at(nanoseconds: u64) -> Fixture {
        let host = Arc::new(AtomicU64::new(nanoseconds));
        let bell = Arc::new(Bell::default());
        let timer = Arc::new(Mutex::new(None));
        let (clock, set) = (host.clone(), timer.clone());
        let rtc = Rtc::new(move || clock.load(Ordering::Relaxed))
            .with_alarm(bell.clone(), move |rest| *set.lock().unwrap() = rest);
        Fixture {
            host,
            bell,
            timer,
            rtc,
        }
    }

    fn read(rtc: &mut Rtc, offset: u64) -> u32 {
        let mut data = [0; 4];
        rtc.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(rtc: &mut Rtc, offset: u64, value: u32) {
        rtc.write(offset, &value.to_le_bytes());
    }

    #[test]
    fn the_high_half_belongs_to_the_low_half_read_before() {
        let mut fixture = rtc_at(0x1_ffff_ffff);
        assert_eq!(read(&mut fixture.rtc, TIME_LOW), 0xffff_ffff);
        fixture.host.store(0x2_0000_0001, Ordering::Relaxed);
        assert_eq!(read(&mut fixture.rtc, TIME_HIGH), 1);
        assert_eq!(read(&mut fixture.rtc, TIME_LOW), 1);
        assert_eq!(read(&mut fixture.rtc, TIME_HIGH), 2);
    }

    #[test]
    fn a_clock_that_the_guest_set_goes_on_from_there() {
        let mut fixture = rtc_at(1000);
        write(&mut fixture.rtc, TIME_HIGH, 7);
        write(&mut fixture.rtc, TIME_LOW, 5);
        fixture.host.store(1010, Ordering::Relaxed);
        assert_eq!(read(&mut fixture.rtc, TIME_LOW), 15);
        assert_eq!(read(&mut fixture.rtc, TIME_HIGH), 7);
    }

    #[test]
    fn an_alarm_rings_once_when_its_time_has_come() {
        let mut fixture = rtc_at(1000);
        write(&mut fixture.rtc, IRQ_ENABLED, 1);
        write(&mut fixture.rtc, ALARM_HIGH, 0);
        write(&mut fixture.rtc, ALARM_LOW, 1500);
        assert_eq!(*fixture.timer.lock().unwrap(), Some(Duration::from_nanos(500)));
        fixture.rtc.alarm_reached();
        assert_eq!(fixture.bell.0.load(Ordering::Relaxed), 0, "too early");
        fixture.host.store(1500, Ordering::Relaxed);
        fixture.rtc.alarm_reached();
        fixture.rtc.alarm_reached();
        assert_eq!(fixture.bell.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&mut fixture.rtc, ALARM_STATUS), 0);
        assert_eq!(*fixture.timer.lock().unwrap(), None);
    }

    #[test]
    fn a_cleared_alarm_does_not_ring() {
        let mut fixture = rtc_at(1000);
        write(&mut fixture.rtc, IRQ_ENABLED, 1);
        write(&mut fixture.rtc, ALARM_LOW, 1500);
        assert_eq!(read(&mut fixture.rtc, ALARM_STATUS), 1);
        write(&mut fixture.rtc, CLEAR_ALARM, 1);
        fixture.host.store(2000, Ordering::Relaxed);
        fixture.rtc.alarm_reached();
        assert_eq!(fixture.bell.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn other_widths_read_all_ones_and_write_nothing() {
        let mut fixture = rtc_at(1000);
        let mut data = [0; 8];
        fixture.rtc.read(TIME_LOW, &mut data);
        fixture.rtc.write(TIME_LOW, &[0; 8]);
        assert_eq!(data, [0xff; 8]);
        assert_eq!(read(&mut fixture.rtc, TIME_LOW), 1000);
    }

    proptest! {
        #[test]
        fn any_sequence_of_accesses_is_harmless(accesses: Vec<(u8, Option<u32>, u64)>) {
            let mut fixture = rtc_at(0);
            for (offset, value, host) in accesses {
                fixture.host.store(host, Ordering::Relaxed);
                match value {
                    Some(value) => write(&mut fixture.rtc, u64::from(offset), value),
                    None => { read(&mut fixture.rtc, u64::from(offset)); }
                }
                fixture.rtc.alarm_reached();
            }
        }
    }
}
