//! Standard output that survives a reader who stops reading: `println!` would panic.

use serde::Serialize;
use std::io::{self, Write};

/// Writes bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Writes a text and a line end.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a message as one line of JSON.
pub(crate) fn json_line<T: Serialize>(message: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string(message)?)
}
