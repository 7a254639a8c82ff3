//! `--stay`: the node stays up, and a person gets lines to paste that ask it something real.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::MODEL;
use super::play::Checked;
use super::source::TempFolder;
use super::stage::Stage;

/// Where the node is and what to ask it. Its file goes with this value.
pub(super) struct Invitation {
    server: String,
    tokens: Option<PathBuf>,
    lora: Option<String>,
    salt: Option<String>,
    _folder: TempFolder,
}

impl Invitation {
    /// Writes the token ids of a prompt that was asked to a temporary file.
    pub(super) fn write(checked: &Checked, stage: &Stage) -> anyhow::Result<Self> {
        let folder = TempFolder::create()?;
        let server = format!("http://{}", stage.address());
        // A prompt with images could not be asked by its tokens alone.
        let sample = checked.samples.iter().find(|sample| sample.query.mm.is_empty());
        let mut invitation = Self { server, tokens: None, lora: None, salt: None, _folder: folder };
        if let Some(sample) = sample {
            let path = invitation._folder.path.join("tokens.json");
            fs::write(&path, serde_json::to_vec(&sample.query.tokens)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            let prompt = sample.request.prompt.as_ref();
            invitation.tokens = Some(path);
            invitation.lora = prompt.and_then(|prompt| prompt.lora_name.clone());
            invitation.salt = prompt.and_then(|prompt| prompt.cache_salt.clone());
        }
        Ok(invitation)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text =
            format!("The node stays up on {} until Ctrl-C. Try in another terminal:\n", self.server);
        for command in self.commands() {
            text.push_str(&format!("  {command}\n"));
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({"server": self.server, "commands": self.commands()})
    }

    fn commands(&self) -> Vec<String> {
        let server = &self.server;
        let mut commands = vec![format!("kvindex workers --server {server}")];
        if let Some(path) = &self.tokens {
            let mut prompt = format!("--server {server} --model {MODEL} --tokens-file '{}'", path.display());
            for (flag, value) in [("--lora", &self.lora), ("--salt", &self.salt)] {
                if let Some(value) = value {
                    prompt.push_str(&format!(" {flag} '{value}'"));
                }
            }
            commands.extend(["match", "explain"].map(|command| format!("kvindex {command} {prompt}")));
        }
        commands
    }
}
