//! The recording that the demo plays: a case on disk, or the one inside the binary, which must not depend on
//! where its source lies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use kvindex_recording::{Checkpoint, Header, Recording, Truth, TruthError};

const BUNDLED: &str = "hot-a";
const BUNDLED_FILES: [(&str, &[u8]); 2] = [
    ("hot-a.kvrec.gz", include_bytes!("../../../recording/cases/hot-a.kvrec.gz")),
    ("hot-a.truth.jsonl.gz", include_bytes!("../../../recording/cases/hot-a.truth.jsonl.gz")),
];

/// A recording with the engines' own answers.
pub(super) struct Case {
    /// All messages.
    pub(super) recording: Arc<Recording>,
    /// The answers, in order of position.
    pub(super) checkpoints: Box<dyn Iterator<Item = Result<Checkpoint, TruthError>>>,
}

impl Case {
    /// Opens the case at `path`, or the bundled one.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            Some(path) => Self::read(&without_suffix(path)),
            None => Self::bundled().context("the bundled recording"),
        }
    }

    /// Who spoke.
    pub(super) fn header(&self) -> &Header {
        &self.recording.header
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let recording = Arc::new(Recording::open(path)?);
        Ok(Self { recording, checkpoints: Box::new(Truth::open(path)?) })
    }

    /// The bundled case is small, so it is read to its end and its files are gone before anything can fail.
    fn bundled() -> anyhow::Result<Self> {
        let folder = TempFolder::create()?;
        for (name, content) in BUNDLED_FILES {
            fs::write(folder.path.join(name), content)
                .with_context(|| format!("cannot write {name} into {}", folder.path.display()))?;
        }
        let case = Self::read(&folder.path.join(BUNDLED))?;
        let checkpoints: Vec<_> = case.checkpoints.collect();
        Ok(Self { recording: case.recording, checkpoints: Box::new(checkpoints.into_iter()) })
    }
}

/// People complete file names with the tab key, so one file of the case means the case.
pub(crate) fn without_suffix(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let suffixes = [".kvrec.gz", ".truth.jsonl.gz", ".requests.jsonl.gz"];
    suffixes.iter().find_map(|suffix| text.strip_suffix(suffix)).map_or_else(|| path.into(), PathBuf::from)
}

/// A folder that is removed with this value.
#[derive(Debug)]
pub(super) struct TempFolder {
    /// Where it lies.
    pub(super) path: PathBuf,
}

impl TempFolder {
    /// A new folder for temporary files of this process.
    pub(super) fn create() -> anyhow::Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("kvindex-demo-{}-{}", std::process::id(), since.as_nanos());
        let path = std::env::temp_dir().join(name);
        // Fails when it exists, so nobody else's files are written over.
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // Nothing is left to do about a folder that cannot be removed.
        let _ = fs::remove_dir_all(&self.path);
    }
}
