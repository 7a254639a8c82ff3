//! The `trace` load: requests of a Mooncake FAST'25 trace through per-worker caches that evict leaves first, least
//! recently used first. One trace block is 512 tokens, so four index blocks of 128.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use rustc_hash::FxHashMap;

use super::random::mix;
use super::stream::{Block, Stream, chain_of, local_hash};
use super::{Credit, Question};

/// What happens next.
pub(crate) enum Step {
    /// Ask this question.
    Ask(usize),
    /// Apply the next event.
    Apply,
}

/// The replayed trace: questions with their answers at their time, and events.
#[derive(Default)]
pub(crate) struct TraceLoad {
    pub(crate) questions: Vec<Question>,
    pub(crate) stream: Stream,
    pub(crate) steps: Vec<Step>,
}

impl TraceLoad {
    /// Reads a trace, gzipped or plain. Each request is sent `copies` times, as so many tenants would.
    pub(crate) fn read(file: &Path, workers: usize, copies: u64, capacity: usize) -> anyhow::Result<Self> {
        let requests = read_requests(file).with_context(|| format!("trace {}", file.display()))?;
        let mut load = TraceLoad::default();
        let mut caches: Vec<Cache> = (0..workers).map(|_| Cache::default()).collect();
        let mut tick = 0;
        for (line, ids) in requests.iter().enumerate() {
            for copy in 0..copies {
                tick += 1;
                let worker = (mix((line as u64 * copies + copy) ^ 0x7ACE) % workers as u64) as usize;
                let locals = ids.iter().flat_map(|id| (0..4).map(move |j| local_hash(0xFA57, copy, *id, j)));
                load.request(&mut caches, worker, &chain_of(None, locals), tick, capacity);
            }
        }
        Ok(load)
    }

    fn request(&mut self, caches: &mut [Cache], worker: usize, chain: &[Block], tick: u64, capacity: usize) {
        let credit = |(w, cache): (usize, &Cache)| {
            let depth = cache.depth(chain);
            (depth > 0).then_some((w as u32, depth as u32))
        };
        let right: Vec<Credit> = caches.iter().enumerate().filter_map(credit).collect();
        self.steps.push(Step::Ask(self.questions.len()));
        self.questions.push(Question { locals: chain.iter().map(|block| block.local).collect(), right });
        let cache = &mut caches[worker];
        let have = cache.touch(chain, tick);
        let fresh = &chain[have..];
        for hash in cache.make_room(fresh.len(), tick, capacity) {
            self.steps.push(Step::Apply);
            self.stream.remove(worker as u32, &[hash]);
        }
        if !fresh.is_empty() {
            let parent = super::stream::parent_of(chain, have);
            cache.insert(parent, fresh, tick);
            self.steps.push(Step::Apply);
            self.stream.store(worker as u32, parent, fresh);
        }
    }
}

struct Node {
    parent: Option<u64>,
    children: u32,
    tick: u64,
}

/// One worker's cache.
#[derive(Default)]
struct Cache {
    nodes: FxHashMap<u64, Node>,
    /// (last use, hash) of those without children.
    leaves: BTreeSet<(u64, u64)>,
}

impl Cache {
    fn depth(&self, chain: &[Block]) -> usize {
        chain.iter().take_while(|block| self.nodes.contains_key(&block.engine)).count()
    }

    /// Marks the held prefix as used now; answers its length.
    fn touch(&mut self, chain: &[Block], tick: u64) -> usize {
        let have = self.depth(chain);
        for block in &chain[..have] {
            let Some(node) = self.nodes.get_mut(&block.engine) else { continue };
            if node.children == 0 {
                self.leaves.remove(&(node.tick, block.engine));
                self.leaves.insert((tick, block.engine));
            }
            node.tick = tick;
        }
        have
    }

    /// Evicts for `fresh` more blocks, never the prefix that this request uses itself.
    fn make_room(&mut self, fresh: usize, tick: u64, capacity: usize) -> Vec<u64> {
        let mut gone = Vec::new();
        while self.nodes.len() + fresh > capacity {
            let Some(&(used, hash)) = self.leaves.first() else { break };
            if used == tick {
                break;
            }
            self.leaves.remove(&(used, hash));
            let parent = self.nodes.remove(&hash).and_then(|node| node.parent);
            gone.push(hash);
            if let Some((parent, node)) = parent.and_then(|p| Some((p, self.nodes.get_mut(&p)?))) {
                node.children -= 1;
                if node.children == 0 {
                    self.leaves.insert((node.tick, parent));
                }
            }
        }
        gone
    }

    fn insert(&mut self, parent: Option<u64>, fresh: &[Block], tick: u64) {
        let mut before = parent;
        for block in fresh {
            if let Some((parent, node)) = before.and_then(|p| Some((p, self.nodes.get_mut(&p)?))) {
                if node.children == 0 {
                    self.leaves.remove(&(node.tick, parent));
                }
                node.children += 1;
            }
            self.nodes.insert(block.engine, Node { parent: before, children: 0, tick });
            before = Some(block.engine);
        }
        if let Some(last) = before {
            self.leaves.insert((tick, last));
        }
    }
}

/// The `hash_ids` of every line.
fn read_requests(file: &Path) -> anyhow::Result<Vec<Vec<u64>>> {
    let opened = File::open(file)?;
    let zipped = file.extension().is_some_and(|suffix| suffix == "gz");
    let reader: Box<dyn Read> =
        if zipped { Box::new(flate2::read::MultiGzDecoder::new(opened)) } else { Box::new(opened) };
    let mut requests = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let ids = hash_ids(&line?).with_context(|| format!("line {}", number + 1))?;
        requests.push(ids);
    }
    Ok(requests)
}

fn hash_ids(line: &str) -> anyhow::Result<Vec<u64>> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    let ids = value["hash_ids"].as_array().context("hash_ids is not a list")?;
    let ids: Option<Vec<u64>> = ids.iter().map(serde_json::Value::as_u64).collect();
    ids.context("hash_ids holds something that is not a number")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_repeated_prefix_is_credited_until_it_is_evicted() {
        let file = std::env::temp_dir().join(format!("kvindex-trace-{}.jsonl", std::process::id()));
        let lines =
            "{\"hash_ids\":[1,2]}\n{\"hash_ids\":[1,3]}\n{\"hash_ids\":[7,8]}\n{\"hash_ids\":[1,2]}\n";
        std::fs::write(&file, lines).unwrap();
        // One worker that holds 12 blocks: ids 1, 2 and 3. Ids 7 and 8 push out 2, then 3, both unused longest.
        let load = TraceLoad::read(&file, 1, 1, 12).unwrap();
        std::fs::remove_file(&file).unwrap();
        let right: Vec<_> = load.questions.iter().map(|question| question.right.clone()).collect();
        assert_eq!(right, [vec![], vec![(0, 4)], vec![], vec![(0, 4)]]);
        assert_eq!((load.stream.stored(), load.stream.removed()), (24, 12));
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert!(hash_ids("{\"hash_ids\":[1,-2]}").unwrap_err().to_string().contains("hash_ids"));
        assert!(hash_ids("{}").unwrap_err().to_string().contains("hash_ids"));
    }
}
