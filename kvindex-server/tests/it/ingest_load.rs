//! Many streams in one thread: all are followed, and waiting costs next to nothing.

use std::time::Duration;

use kvindex_server::ingest::sequencer::Phase;

use crate::ingest_rig::{LED, Rig, quick, subscription};

const STREAMS: u32 = 240;

/// CPU time a thread has used, in clock ticks of 10 ms.
#[cfg(target_os = "linux")]
fn cpu_ticks_of(task: &std::path::Path) -> u64 {
    let stat = std::fs::read_to_string(task.join("stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// More streams than one ZeroMQ context has room for, on a few publishers.
#[test]
fn hundreds_of_streams_in_one_thread() {
    let context = zmq::Context::new();
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let socket = context.socket(zmq::PUB).unwrap();
            socket.bind("tcp://127.0.0.1:*").unwrap();
            let endpoint = socket.get_last_endpoint().unwrap().unwrap();
            (socket, endpoint)
        })
        .collect();
    let rig =
        Rig::start(kvindex_server::ingest::IngestConfig { idle_poll: Duration::from_secs(5), ..quick() });
    for number in 0..STREAMS {
        let (_, endpoint) = &publishers[number as usize % publishers.len()];
        rig.ingest.subscribe(subscription(number, endpoint, None), LED).unwrap();
    }
    rig.wait("all connected", |rig| (0..STREAMS).all(|number| rig.is_connected(number)));
    // `[0, []]`: a batch without events. Repeated until the last subscription has arrived.
    rig.wait("all heard", |rig| {
        for (socket, _) in &publishers {
            socket.send_multipart([&b""[..], &0u64.to_be_bytes(), &[0x92, 0, 0x90]], 0).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
        (0..STREAMS).all(|number| rig.status(number).phase == Phase::Live)
    });
    #[cfg(target_os = "linux")]
    {
        std::thread::sleep(Duration::from_millis(200));
        let task = rig.thread.lock().clone();
        let before = cpu_ticks_of(&task);
        std::thread::sleep(Duration::from_secs(2));
        let spent = cpu_ticks_of(&task) - before;
        // A fifth of a core; a busy loop would take all 200 ticks.
        assert!(spent < 40, "{spent} ticks of 10 ms in 2 s of silence");
    }
    rig.ingest.shutdown();
}
