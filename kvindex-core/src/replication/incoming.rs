//! A snapshot on its way in, part by part.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::ids::NodeId;

/// What a sender may claim that a snapshot has.
const MAX_BYTES: u64 = 64 << 30;

/// At most one at a time: a new transfer takes the place of the one before.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    current: Mutex<Option<Transfer>>,
}

#[derive(Debug)]
struct Transfer {
    from: NodeId,
    number: u64,
    total: u64,
    bytes: BytesMut,
}

impl Incoming {
    /// Takes a part; the whole snapshot once it is there. An error when the part does not follow.
    pub(crate) fn take(
        &self,
        from: NodeId,
        number: u64,
        offset: u64,
        total: u64,
        part: &[u8],
    ) -> Result<Option<Bytes>, ()> {
        let mut current = self.current.lock();
        if offset == 0 {
            *current = Some(Transfer { from, number, total, bytes: BytesMut::new() });
        }
        let transfer = current.as_mut().ok_or(())?;
        let ours = (transfer.from, transfer.number, transfer.total) == (from, number, total);
        let have = transfer.bytes.len() as u64;
        let fits = total <= MAX_BYTES && have + part.len() as u64 <= total;
        // A part that was sent twice, because its answer was lost or the network doubled it, is there already.
        if ours && offset + part.len() as u64 <= have && offset < have {
            return Ok(None);
        }
        if !ours || offset != have || !fits {
            return Err(());
        }
        transfer.bytes.extend_from_slice(part);
        if transfer.bytes.len() as u64 == total {
            return Ok(current.take().map(|transfer| transfer.bytes.freeze()));
        }
        Ok(None)
    }
}
