//! Standard output that survives a reader who stops reading (`println!` would panic), and on which nothing that others
//! chose reaches the terminal as a control character.

use serde::Serialize;
use std::io::{self, Write};

use crate::printable;

/// Writes bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Writes a text and a line end.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    write(format!("{}\n", printable::lines(text)).as_bytes())
}

/// Writes a text that carries colours of ours, and a line end. Whoever made it has escaped what is not ours.
pub(crate) fn coloured(text: &str) -> anyhow::Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Writes a message as one line of JSON.
pub(crate) fn json_line<T: Serialize>(message: &T) -> anyhow::Result<()> {
    let json = serde_json::to_string(message)?;
    write(format!("{}\n", printable::json(&json)).as_bytes())
}
