//! sled's flush, which sometimes waits for ever.
//!
//! With every buffer written and the current one empty, 0.34.7 may still believe that something is missing; it then
//! waits for a write that nobody makes, in `flush` and in the flush that dropping a database does. A further write
//! frees it. So a flush runs beside us, and when it takes long something is written; and nothing is dropped before a
//! flush had nothing to do.

use sled::Db;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// The key that is written to free a flush. No key of a shard has a `d` there.
const KEY: &[u8] = b"nudge";
/// A flush that takes so long may be stuck; if it is not, a needless write does no harm.
const SOON: Duration = Duration::from_millis(200);
/// After so many tries the disk is to blame.
const TRIES: usize = 300;

/// Flushes, and says how many bytes that was.
pub(super) fn flush(db: &Db) -> Result<usize, String> {
    let (sender, results) = sync_channel(TRIES + 1);
    begin(db, &sender)?;
    let mut running = 1;
    for length in 0..TRIES {
        match results.recv_timeout(SOON) {
            Ok(result) => {
                // The others hold the database, too.
                wait(&results, running - 1)?;
                return result.map_err(|error| error.to_string());
            }
            Err(RecvTimeoutError::Disconnected) => return Err("a thread of a flush is gone".into()),
            Err(RecvTimeoutError::Timeout) => {
                db.insert(KEY, vec![0; length]).map_err(|error| error.to_string())?;
                begin(db, &sender)?;
                running += 1;
            }
        }
    }
    Err(format!("a flush does not end within {} s", SOON.as_secs_f64() * 300.0))
}

/// Drops a database, when nothing is left to flush.
pub(super) fn close(db: Db) {
    for _ in 0..TRIES {
        match flush(&db) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error, "sled is left without a flush");
                break;
            }
        }
    }
    drop(db);
}

fn begin(db: &Db, sender: &SyncSender<sled::Result<usize>>) -> Result<(), String> {
    let (db, sender) = (db.clone(), sender.clone());
    let flush = move || {
        let result = db.flush();
        drop(db);
        let _ = sender.send(result);
    };
    let thread = thread::Builder::new().name("sled-flush".into()).spawn(flush);
    thread.map(drop).map_err(|error| error.to_string())
}

fn wait(results: &Receiver<sled::Result<usize>>, running: usize) -> Result<(), String> {
    (0..running).try_for_each(|_| results.recv().map(drop).map_err(|error| error.to_string()))
}
