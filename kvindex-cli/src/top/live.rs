//! The loop behind the live screen: looks and keys come in, screens go out, and the terminal is given back whatever
//! ends it.

use anyhow::Context;
use kvindex_client::CallError;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::board::Board;
use super::draw;
use super::keys::{self, Wish};
use super::look::{Look, Looker};
use super::view::View;

/// How long the thread of the keys sleeps before it sees that nobody listens any more.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Keys that may wait to be taken.
const KEYS_AHEAD: usize = 64;

/// As a shell tells an end by SIGTERM, and by SIGINT.
const TERMINATED: u8 = 128 + 15;
const INTERRUPTED: u8 = 128 + 2;

/// The terminal while it shows the screen. Dropped, it is as before; a panic gives it back as well, before it says
/// what happened.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> anyhow::Result<Self> {
        let terminal = ratatui::try_init();
        if terminal.is_err() {
            ratatui::restore();
        }
        Ok(Self(terminal.context("cannot draw on this terminal")?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        ratatui::restore();
    }
}

/// What is known of the node.
struct State {
    view: View,
    board: Board,
    last: Look,
    /// Since when it does not answer, and why.
    gone: Option<(Instant, String)>,
}

impl State {
    fn take(&mut self, server: &str, looked: Result<Look, CallError>) {
        match looked {
            Ok(look) => {
                self.board = Board::new(server, &look, Some(&self.last));
                (self.last, self.gone) = (look, None);
            }
            Err(error) => {
                let since = self.gone.take().map_or_else(Instant::now, |(since, _)| since);
                self.gone = Some((since, error.to_string()));
            }
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> anyhow::Result<()> {
        let gone = self.gone.as_ref().map(|(since, why)| {
            format!("the node does not answer for {} s, trying again: {why}", since.elapsed().as_secs())
        });
        let drawn = screen.0.draw(|frame| draw::screen(frame, &self.board, &mut self.view, gone.as_deref()));
        drawn.context("cannot draw on this terminal").map(|_| ())
    }
}

/// Shows the screen until a key or a signal ends it. The first look comes before: where no node answers there is
/// nothing to show.
pub(super) async fn run(looker: Looker, view: View, interval: Duration) -> anyhow::Result<ExitCode> {
    let last = looker.look().await?;
    let board = Board::new(looker.server(), &last, None);
    let mut state = State { view, board, last, gone: None };
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    // Ctrl-C is a key here, and comes as a signal from elsewhere only.
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut hung_up = signal(SignalKind::hangup()).context("cannot wait for signals")?;
    let mut screen = Screen::open()?;
    let mut keys = listen();
    let mut asked: Option<JoinHandle<Result<Look, CallError>>> = None;
    let mut due = Instant::now() + interval;
    loop {
        state.draw(&mut screen)?;
        tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                    if keys::take(key, &mut state.view) == Wish::Quit {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                // A new size is drawn at once.
                Some(_) => {}
                // The terminal is gone.
                None => return Ok(ExitCode::SUCCESS),
            },
            looked = answer(&mut asked) => {
                asked = None;
                due = Instant::now() + interval;
                state.take(looker.server(), looked.context("a look at the node failed")?);
            }
            () = tokio::time::sleep_until(due.into()), if asked.is_none() && !state.view.paused => {
                let looker = looker.clone();
                asked = Some(tokio::spawn(async move { looker.try_look().await }));
            }
            _ = terminated.recv() => return Ok(ExitCode::from(TERMINATED)),
            _ = interrupted.recv() => return Ok(ExitCode::from(INTERRUPTED)),
            _ = hung_up.recv() => return Ok(ExitCode::from(TERMINATED)),
        }
    }
}

/// The answer to a look under way; without one this waits for ever.
async fn answer<T>(asked: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

/// Keys and sizes, from a thread that may block on the terminal. It ends when nobody takes them.
fn listen() -> mpsc::Receiver<Event> {
    let (send, receive) = mpsc::channel(KEYS_AHEAD);
    std::thread::spawn(move || {
        while !send.is_closed() {
            let seen = match event::poll(KEY_WAIT) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            let Ok(event) = seen else { return };
            if send.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receive
}
