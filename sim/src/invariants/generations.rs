//! When a generation begins, every block of the ones before is gone; and a generation is one life of the engine, never
//! a mix of two.

use std::collections::BTreeSet;

use super::ledger::{ChangeOf, Effect};
use super::{Applied, Invariant, Ledger, Verdict, held};

#[derive(Debug)]
pub(super) struct GenerationFence;

impl Invariant for GenerationFence {
    fn name(&self) -> &'static str {
        "generation fences"
    }

    fn applied(&mut self, applied: &Applied<'_>, ledger: &Ledger) -> Verdict {
        let Some(entry) = ledger.entry(applied.share.shard, applied.at.index) else { return Ok(()) };
        for (at, effect) in entry.effects.iter().enumerate() {
            match effect {
                Effect::Batch { stream, generation, seq, lives, .. } if lives.is_empty() => {
                    return Err(format!(
                        "{stream} generation {generation}, batch {seq}: no one life of the engine sent this and \
                         what came before"
                    ));
                }
                Effect::Generation { stream, generation } => {
                    let mut stored = BTreeSet::new();
                    for effect in &entry.effects[at..] {
                        if let Effect::Batch { stream: of, changes, .. } = effect
                            && of == stream
                        {
                            for change in changes.iter() {
                                if let ChangeOf::Stores(tier, names) = change {
                                    stored.extend(names.iter().map(|name| (tier.clone(), *name)));
                                }
                            }
                        }
                    }
                    let held = held::of(applied.share.index, stream);
                    if let Some(block) =
                        held::beyond(&held, |tier, name| stored.contains(&(tier.clone(), name)))
                    {
                        let node = applied.share.node;
                        return Err(format!(
                            "generation {generation} of {stream} began, node {node} keeps {block:?}"
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
