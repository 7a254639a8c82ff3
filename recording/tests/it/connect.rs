//! Engines that connect where they publish, to a subscriber that binds.

use std::time::Duration;

use kvindex_recording::{Publisher, PublisherOptions};
use zmq::{Context, POLLIN, Socket, SocketType};

use crate::recording;

/// A SUB socket that waits for engines on a port of the system's choice.
fn bound(context: &Context) -> (Socket, String) {
    let socket = context.socket(SocketType::SUB).unwrap();
    socket.set_rcvhwm(0).unwrap();
    socket.set_subscribe(b"").unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    (socket, endpoint)
}

/// Seqs that arrive until none comes any more.
fn seqs(socket: &Socket) -> Vec<u64> {
    let mut seqs = Vec::new();
    while socket.poll(POLLIN, 400).unwrap() > 0 {
        let frames = socket.recv_multipart(0).unwrap();
        seqs.push(u64::from_be_bytes(frames[1].as_slice().try_into().unwrap()));
    }
    seqs
}

/// Does `work` while the socket is looked after: ZeroMQ answers a publisher that connects with the subscription
/// only when the application touches the socket.
fn meanwhile<T: Send>(socket: &Socket, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            socket.poll(POLLIN, 10).unwrap();
        }
        work.join().unwrap()
    })
}

fn to(endpoint: &str) -> PublisherOptions {
    let publish_to = [(0, endpoint.to_owned())].into();
    PublisherOptions { publish_to, down: Duration::from_millis(50), ..PublisherOptions::default() }
}

#[test]
fn an_engine_that_connects_is_heard_and_its_life_after_a_restart_too() {
    let context = Context::new();
    let (subscriber, endpoint) = bound(&context);
    let publisher = Publisher::start(recording("dup"), to(&endpoint)).unwrap();
    assert_eq!(publisher.endpoints()[0].publish, endpoint);
    assert!(publisher.endpoints()[0].replay.starts_with("tcp://127.0.0.1:"), "the replay socket binds");
    assert!(meanwhile(&subscriber, || publisher.wait_for_subscribers(Duration::from_secs(10))));
    publisher.play_until(5).unwrap();
    assert_eq!(seqs(&subscriber), [0, 1, 2, 3, 4]);
    meanwhile(&subscriber, || publisher.restart(0)).unwrap();
    publisher.play_until(6).unwrap();
    assert_eq!(seqs(&subscriber), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn an_engine_that_connects_to_nobody_loses_what_it_says() {
    let context = Context::new();
    let (subscriber, endpoint) = bound(&context);
    drop(subscriber);
    let publisher = Publisher::start(recording("dup"), to(&endpoint)).unwrap();
    publisher.play_until(3).unwrap();
    let late = context.socket(SocketType::SUB).unwrap();
    late.set_subscribe(b"").unwrap();
    while late.bind(&endpoint).is_err() {
        std::thread::yield_now(); // the first one's port is given back in its own time
    }
    assert!(meanwhile(&late, || publisher.wait_for_subscribers(Duration::from_secs(10))));
    publisher.play_until(5).unwrap();
    assert_eq!(seqs(&late), [3, 4]);
}
