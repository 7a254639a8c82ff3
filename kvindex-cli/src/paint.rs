//! What the terminal can show: its width, and whether it wants colours.

use std::io::IsTerminal;

use ratatui::crossterm::terminal;

/// Where nothing says how wide a line may be.
const WIDTH: u16 = 80;

/// Narrower than this nothing can be read; wider, a line has no end.
const WIDTHS: std::ops::RangeInclusive<u16> = 40..=160;

/// How a text is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
    Blue,
    Magenta,
    Dim,
    Bold,
}

/// The place that a picture is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    /// Columns of a line.
    pub(crate) width: usize,
    /// Whether colours may be used.
    pub(crate) colours: bool,
}

impl Paint {
    /// Standard output, as it is now.
    pub(crate) fn of_stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let colours =
            is_terminal && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        Self { width: usize::from(stdout_width(is_terminal).clamp(*WIDTHS.start(), *WIDTHS.end())), colours }
    }

    /// The text in a colour, if there are any.
    pub(crate) fn coloured(&self, colour: Colour, text: &str) -> String {
        if !self.colours || text.is_empty() {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Blue => "34",
            Colour::Magenta => "35",
            Colour::Dim => "2",
            Colour::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A pipe has no width of its own, but whoever set one up may have said which (`COLUMNS`).
fn stdout_width(is_terminal: bool) -> u16 {
    let asked = if is_terminal { terminal::size().ok().map(|(columns, _)| columns) } else { None };
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    asked.filter(|columns| *columns > 0).or_else(said).unwrap_or(WIDTH)
}
