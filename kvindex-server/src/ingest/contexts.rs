//! ZeroMQ contexts for the streams' sockets.

use super::limits::MAX_STREAMS_PER_CONTEXT;

/// ZeroMQ contexts with how many streams each serves. libzmq allows a context 1023 sockets and a stream
/// takes up to five, so streams are spread over as many contexts as they need.
#[derive(Default)]
pub(super) struct Contexts {
    all: Vec<(zmq::Context, usize)>,
    links_opened: u64,
}

impl Contexts {
    /// A context with room for one more stream, which it now counts: its number for [`Contexts::release`],
    /// the context, and a name for the stream's monitor that is unique in it.
    pub(super) fn take(&mut self) -> (usize, zmq::Context, u64) {
        self.links_opened += 1;
        let open =
            self.all.iter_mut().enumerate().find(|(_, (_, streams))| *streams < MAX_STREAMS_PER_CONTEXT);
        if let Some((number, (context, streams))) = open {
            *streams += 1;
            return (number, context.clone(), self.links_opened);
        }
        let context = zmq::Context::new();
        self.all.push((context.clone(), 1));
        (self.all.len() - 1, context, self.links_opened)
    }

    /// Gives a stream's place back.
    pub(super) fn release(&mut self, number: usize) {
        self.all.get_mut(number).into_iter().for_each(|(_, streams)| *streams = streams.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    /// docs/security.md tells operators what follows from this.
    #[test]
    fn the_libzmq_that_is_built_here_has_no_encryption() {
        assert_eq!(zmq::has("curve"), Some(false));
        assert_eq!(zmq::has("ipc"), Some(true), "it does know what it has");
    }
}
