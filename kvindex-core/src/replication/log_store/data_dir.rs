//! The directory of a log on disk: whose it is, and how it was left.
//!
//! A file `log-store` beside the engine's own folder says which engine wrote the log, under which durability, in which
//! boot of the machine, and whether it was closed. It is replaced whole, and flushed, at every opening and closing.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::backend::{BackendKind, Durability};
use super::error::LogError;

const MARKER: &str = "log-store";
const LOCK: &str = "lock";
const TITLE: &str = "kvindex log store";
const FORMAT: &str = "1";
/// The last line: without it the file is not whole.
const END: &str = "end";

/// How a log was left, or is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The engine has not made its files yet: nothing was ever acknowledged.
    Founding,
    Open,
    Closed,
}

impl Phase {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Founding, "founding"), (Self::Open, "open"), (Self::Closed, "closed")];

    fn name(self) -> &'static str {
        match self {
            Self::Founding => "founding",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What the marker file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marker {
    backend: String,
    /// Whether everything acknowledged was flushed before.
    fsync: bool,
    boot: String,
    phase: Phase,
    /// Once doubtful, always, until somebody decides to go on with what is left.
    tail_may_be_gone: bool,
}

impl Marker {
    fn text(&self) -> String {
        let mut text = format!("{TITLE}\nformat {FORMAT}\n");
        let yes = |flag: bool| if flag { "yes" } else { "no" };
        let lines = [
            ("backend", self.backend.as_str()),
            ("fsync", yes(self.fsync)),
            ("boot", &self.boot),
            ("phase", self.phase.name()),
            ("tail-may-be-gone", yes(self.tail_may_be_gone)),
        ];
        for (name, value) in lines {
            let _ = writeln!(text, "{name} {value}");
        }
        text + END + "\n"
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(format!("{MARKER} does not begin with \"{TITLE}\""));
        }
        let mut value = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(str::to_owned).ok_or_else(|| format!("{MARKER} does not say \"{name}\""))
        };
        let format = value("format")?;
        if format != FORMAT {
            return Err(format!("its format is {format}, this program knows {FORMAT}"));
        }
        let marker = Self {
            backend: value("backend")?,
            fsync: value("fsync")? == "yes",
            boot: value("boot")?,
            phase: {
                let name = value("phase")?;
                let known = Phase::ALL.iter().find(|(_, known)| *known == name);
                known.map(|(phase, _)| *phase).ok_or_else(|| format!("no phase \"{name}\" is known"))?
            },
            tail_may_be_gone: value("tail-may-be-gone")? == "yes",
        };
        if lines.next() != Some(END) {
            return Err(format!("{MARKER} is not whole"));
        }
        Ok(marker)
    }
}

/// A directory that holds a log, while this process holds the directory.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    marker: Marker,
    /// Held for as long as the log is open.
    _lock: File,
}

impl DataDir {
    /// Takes the directory, or makes it.
    pub(super) fn take(path: &Path, backend: BackendKind, durability: Durability) -> Result<Self, LogError> {
        Self::take_in_boot(path, backend, durability, &boot_id())
    }

    /// As `take`, in the named boot of the machine; the empty name is never the same boot as another.
    pub(super) fn take_in_boot(
        path: &Path,
        backend: BackendKind,
        durability: Durability,
        boot: &str,
    ) -> Result<Self, LogError> {
        let io = |error: io::Error| refused(path, format!("cannot be used: {error}"));
        fs::create_dir_all(path).map_err(io)?;
        let lock = lock(path)?;
        let old = read_marker(path)?;
        let engine = path.join(backend.name());
        if let Some(old) = &old {
            old_fits(path, old, backend, &engine)?;
        }
        let fresh = old.as_ref().is_none_or(|old| old.phase == Phase::Founding);
        if fresh && engine.exists() {
            // Left half made by a founding that was cut short.
            fs::remove_dir_all(&engine).map_err(io)?;
        }
        let marker = Marker {
            backend: backend.name().into(),
            fsync: durability == Durability::Fsync,
            boot: boot.into(),
            phase: if fresh { Phase::Founding } else { Phase::Open },
            tail_may_be_gone: old.is_some_and(|old| {
                let same_boot = !boot.is_empty() && old.boot == boot;
                old.tail_may_be_gone || old.phase == Phase::Open && !old.fsync && !same_boot
            }),
        };
        let dir = Self { path: path.to_owned(), marker, _lock: lock };
        dir.write_marker()?;
        fs::create_dir_all(&engine).map_err(io)?;
        Ok(dir)
    }

    /// Where the engine's files go.
    pub(super) fn engine_folder(&self) -> PathBuf {
        self.path.join(&self.marker.backend)
    }

    /// Whether the engine has to make its files.
    pub(super) fn is_fresh(&self) -> bool {
        self.marker.phase == Phase::Founding
    }

    /// Notes that the engine has made its files.
    pub(super) fn founded(&mut self) -> Result<(), LogError> {
        if self.marker.phase == Phase::Founding {
            self.marker.phase = Phase::Open;
            self.write_marker()?;
        }
        Ok(())
    }

    /// Notes that the log was left in good order.
    pub(super) fn close(&mut self) -> Result<(), LogError> {
        self.marker.phase = Phase::Closed;
        self.write_marker()
    }

    /// See [`super::LogBackend::tail_may_be_gone`].
    pub(super) fn tail_may_be_gone(&self) -> bool {
        self.marker.tail_may_be_gone
    }

    /// See [`super::LogBackend::accept_tail`].
    pub(super) fn accept_tail(&mut self) -> Result<(), LogError> {
        self.marker.tail_may_be_gone = false;
        self.write_marker()
    }

    fn write_marker(&self) -> Result<(), LogError> {
        let write = || {
            let temporary = self.path.join(format!("{MARKER}.tmp"));
            let mut file = File::create(&temporary)?;
            file.write_all(self.marker.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join(MARKER))?;
            // The rename itself is durable only once the folder is.
            File::open(&self.path)?.sync_all()
        };
        write()
            .map_err(|error: io::Error| refused(&self.path, format!("{MARKER} cannot be written: {error}")))
    }
}

fn refused(path: &Path, why: String) -> LogError {
    LogError::Directory { path: path.to_owned(), why }
}

fn lock(path: &Path) -> Result<File, LogError> {
    let file =
        File::create(path.join(LOCK)).map_err(|error| refused(path, format!("cannot be used: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(refused(
            path,
            "another process has this log open: stop it, or give this node its own directory".into(),
        )),
        Err(TryLockError::Error(error)) => Err(refused(path, format!("cannot be locked: {error}"))),
    }
}

/// The marker, or `None` in a directory that is empty but for what an opening leaves.
fn read_marker(path: &Path) -> Result<Option<Marker>, LogError> {
    const AWAY: &str =
        "Put this directory aside and let the node join anew under a new id, or name another directory";
    match fs::read_to_string(path.join(MARKER)) {
        Ok(text) => Marker::parse(&text)
            .map(Some)
            .map_err(|why| refused(path, format!("this is no usable log: {why}. {AWAY}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entries =
                fs::read_dir(path).map_err(|error| refused(path, format!("cannot be read: {error}")))?;
            let foreign = entries
                .flatten()
                .map(|entry| entry.file_name())
                .find(|name| name != LOCK && *name != *format!("{MARKER}.tmp"));
            match foreign {
                None => Ok(None),
                Some(name) => Err(refused(
                    path,
                    format!("this is no log: there is {}, but no file {MARKER}. {AWAY}", name.display()),
                )),
            }
        }
        Err(error) => Err(refused(path, format!("{MARKER} cannot be read: {error}. {AWAY}"))),
    }
}

fn old_fits(path: &Path, old: &Marker, backend: BackendKind, engine: &Path) -> Result<(), LogError> {
    if old.backend != backend.name() {
        let why = format!(
            "this log was written by {}, and {backend} cannot read it: set the log store to {}, or put this directory \
             aside and let the node join anew under a new id",
            old.backend, old.backend
        );
        return Err(refused(path, why));
    }
    if old.phase != Phase::Founding && !engine.is_dir() {
        let why = format!(
            "the folder {backend} is missing: part of this log is gone. Put this directory aside and let the node join \
             anew under a new id"
        );
        return Err(refused(path, why));
    }
    Ok(())
}

/// Names this run of the machine; empty where it has no name.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
