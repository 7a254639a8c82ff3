//! Small histories whose right answer is beyond doubt: a worker's credit is the number of leading blocks of the
//! question that it holds.

use super::Run;
use crate::indexes::{Implementation, KvIndex, Shared, Visitor, visit};
use crate::work::Credit;
use crate::work::random::mix;
use crate::work::stream::{Block, chain_of, local_hash};

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) story: &'static str,
    pub(crate) which: Implementation,
    pub(crate) got: Vec<Credit>,
    pub(crate) right: Vec<Credit>,
}

impl Probe {
    pub(crate) fn is_right(&self) -> bool {
        self.got == self.right
    }
}

/// All probes of all implementations.
pub(crate) fn run(run: &Run) -> anyhow::Result<Vec<Probe>> {
    let mut probes = Visit(Vec::new());
    for which in &run.implementations {
        visit(*which, &mut probes)?;
    }
    Ok(probes.0)
}

struct Visit(Vec<Probe>);

impl Visitor for Visit {
    fn visit<I: KvIndex>(
        &mut self,
        which: Implementation,
        make: &dyn Fn() -> I,
        _: Option<Shared<I>>,
    ) -> anyhow::Result<()> {
        let histories: [fn(&Table<I>, Report<'_>); 7] =
            [hole, lost_head, orphans, copies, unknown_removal, private_hashes, two_hashes];
        for history in histories {
            history(&Table { index: make() }, &mut |story, got, right| {
                self.0.push(Probe { story, which, got, right: right.to_vec() });
            });
        }
        Ok(())
    }
}

type Report<'a> = &'a mut dyn FnMut(&'static str, Vec<Credit>, &[Credit]);

/// One index, and the hands that move it.
struct Table<I> {
    index: I,
}

impl<I: KvIndex> Table<I> {
    fn store(&self, worker: u32, parent: Option<u64>, blocks: &[Block]) {
        self.index.apply(self.index.store(worker, 0, parent, blocks));
        self.index.barrier();
    }

    fn remove(&self, worker: u32, blocks: &[Block]) {
        let hashes: Vec<u64> = blocks.iter().map(|block| block.engine).collect();
        self.index.apply(self.index.remove(worker, 0, &hashes));
        self.index.barrier();
    }

    fn ask(&self, blocks: &[Block]) -> Vec<Credit> {
        let locals: Vec<u64> = blocks.iter().map(|block| block.local).collect();
        I::credits(&self.index.find(&self.index.query(&locals)))
    }
}

fn blocks(tag: u64, count: u64, parent: Option<u64>) -> Vec<Block> {
    chain_of(parent, (0..count).map(|i| local_hash(0x5E, tag, 0, i)))
}

fn hole<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    table.store(0, None, &chain);
    table.remove(0, &chain[4..5]);
    report("block 4 of 10 is evicted", table.ask(&chain), &[(0, 4)]);
    table.store(0, Some(chain[3].engine), &chain[4..5]);
    report("and stored again alone", table.ask(&chain), &[(0, 10)]);
}

fn lost_head<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    let end = Some(chain[9].engine);
    let (one, other) = (blocks(2, 6, end), blocks(3, 6, end));
    table.store(0, None, &chain);
    table.store(1, None, &chain);
    table.store(0, end, &one);
    table.store(1, end, &other);
    table.remove(0, &chain[..1]);
    let whole: Vec<Block> = chain.iter().chain(&one).copied().collect();
    report("one worker's chain has lost its head, another's has another end", table.ask(&whole), &[(1, 10)]);
}

fn orphans<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    table.store(0, Some(chain[4].engine), &chain[5..]);
    table.store(0, None, &chain[..5]);
    report("blocks 5 to 9 come before 0 to 4", table.ask(&chain), &[(0, 10)]);
}

fn copies<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    table.store(0, None, &chain);
    table.store(0, None, &chain);
    table.remove(0, &chain[9..]);
    report("two copies of all are stored, one of the last is removed", table.ask(&chain), &[(0, 10)]);
    table.remove(0, &chain[9..]);
    report("and the second", table.ask(&chain), &[(0, 9)]);
}

fn unknown_removal<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    table.store(0, None, &chain);
    table.remove(0, &[chain[9], chain[8]]);
    table.remove(0, &chain[9..]);
    report("a block that is gone is removed again", table.ask(&chain), &[(0, 8)]);
}

/// The same contents under another engine's hashes.
fn foreign(chain: &[Block]) -> Vec<Block> {
    chain.iter().map(|block| Block { local: block.local, engine: mix(block.engine) }).collect()
}

fn private_hashes<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    table.store(0, None, &foreign(&chain));
    report("an engine hashes in its own way", table.ask(&chain), &[(0, 10)]);
}

fn two_hashes<I: KvIndex>(table: &Table<I>, report: Report<'_>) {
    let chain = blocks(1, 10, None);
    let other = foreign(&chain);
    table.store(0, None, &chain);
    table.store(1, None, &other[..5]);
    report("two engines hash one content differently", table.ask(&chain), &[(0, 10), (1, 5)]);
    table.store(1, Some(other[4].engine), &other[5..]);
    report("the second stores the rest", table.ask(&chain), &[(0, 10), (1, 10)]);
    table.remove(1, &other[9..]);
    report("it evicts the last block", table.ask(&chain), &[(0, 10), (1, 9)]);
    let rest: Vec<Block> = other[..9].iter().rev().copied().collect();
    table.remove(1, &rest);
    report("it evicts everything", table.ask(&chain), &[(0, 10)]);
}
