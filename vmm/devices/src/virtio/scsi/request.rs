//! The two ends of a request on the wire: the header that a driver writes, and the response that it reads (5.6.6.1).

use vm_memory::VolatileSlice;

use super::sense;
use super::spec::{self, CDB_LEN, CDB_SIZES, Config, HEADER_LEN, RESPONSE_LEN, Response, SENSE_SIZES};
use super::unit::Done;
use crate::virtio::buffers::Part;
use crate::virtio::device::QueueError;

/// CHECK CONDITION (SAM-5, 5.3.1).
const CHECK: u8 = 0x02;

/// A request's header.
pub(super) struct Header {
    /// `None` for a target that is not.
    pub(super) unit: Option<u8>,
    pub(super) id: u64,
    pub(super) cdb: [u8; CDB_LEN],
}

/// What is answered to a request: how it was carried, or what came of its command.
pub(super) enum Verdict {
    Carried(Response),
    Done(Done),
}

/// Where the response goes.
pub(super) struct Room<'m>(Vec<VolatileSlice<'m>>);

// === impl Header ===

impl Header {
    /// Reads it, with a CDB as long as the driver says; `None` if it is not all there. The data follows.
    pub(super) fn read(config: Config, from: &mut Part<'_, '_>) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN + *CDB_SIZES.end() as usize];
        let len = HEADER_LEN + config.cdb_size as usize;
        if from.read(&mut bytes[..len]) < len {
            return None;
        }
        let (header, cdb) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [
            l0,
            l1,
            l2,
            l3,
            l4,
            l5,
            l6,
            l7,
            i0,
            i1,
            i2,
            i3,
            i4,
            i5,
            i6,
            i7,
            _,
            _,
            _,
        ] = *header;
        Some(Self {
            unit: spec::unit_of([l0, l1, l2, l3, l4, l5, l6, l7]),
            id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            cdb: *cdb.first_chunk()?,
        })
    }
}

// === impl Room ===

impl<'m> Room<'m> {
    /// Takes the room off the front; the data follows.
    ///
    /// # Errors
    /// [`QueueError::NoStatus`] where there is not enough.
    pub(super) fn take(config: Config, to: &mut Part<'_, 'm>) -> Result<Self, QueueError> {
        let len = RESPONSE_LEN + config.sense_size as usize;
        if to.len() < len as u64 {
            return Err(QueueError::NoStatus);
        }
        Ok(Self(to.take(len)))
    }

    /// Writes the response to a request that had so many bytes of data; how many bytes the driver has with it.
    pub(super) fn fill(&self, verdict: &Verdict, data: u64) -> u32 {
        let (response, sense, sent, taken) = match verdict {
            Verdict::Carried(response) => (*response, None, 0, 0),
            Verdict::Done(Done::Overrun) => (Response::Overrun, None, 0, 0),
            Verdict::Done(Done::Check(sense)) => (Response::Ok, Some(sense.bytes()), 0, 0),
            Verdict::Done(Done::Good { sent, taken }) => (Response::Ok, None, *sent, *taken),
        };
        let mut bytes = [0; RESPONSE_LEN + *SENSE_SIZES.end() as usize];
        let residual = u32::try_from(data.saturating_sub(sent + taken)).unwrap_or(u32::MAX);
        bytes[4..8].copy_from_slice(&residual.to_le_bytes());
        if let Some(sense) = sense {
            bytes[0] = sense::LEN.to_le_bytes()[0];
            bytes[10] = CHECK;
            bytes[RESPONSE_LEN..][..sense::LEN].copy_from_slice(&sense);
        }
        bytes[11] = response as u8;
        let mut rest = &bytes[..];
        let mut len = sent;
        for slice in &self.0 {
            let (now, later) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(now);
            rest = later;
            len += now.len() as u64;
        }
        // The transport's bound on chains keeps this below 4 GiB.
        u32::try_from(len).unwrap_or(u32::MAX)
    }
}
