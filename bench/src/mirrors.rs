//! What computing an engine's own block hashes costs, beside the hashes of the index.

use std::hint::black_box;
use std::time::Instant;

use kvindex_core::mirror::{HashProfile, MirrorPrompt, VllmAlgorithm};
use kvindex_core::{BlockHasher, SequenceHash};

const BLOCKS: u32 = 8192;
const BLOCK_SIZE: usize = 16;

/// Prints the median over `rounds` for each algorithm.
///
/// # Errors
/// When a profile cannot be made, which would be a mistake here.
pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let tokens = BLOCKS * BLOCK_SIZE as u32;
    let narrow: Vec<u32> = (0..tokens).map(|i| i.wrapping_mul(2_654_435_761) % 151_936).collect();
    let wide: Vec<u64> = narrow.iter().copied().map(u64::from).collect();
    let mut hasher = BlockHasher::new();
    let own = nanos(rounds, &mut || {
        let chained = narrow
            .chunks_exact(BLOCK_SIZE)
            .fold(None, |parent, tokens| Some(SequenceHash::chain(parent, hasher.local(tokens, &[]))));
        black_box(chained);
    });
    println!("block hashes from tokens, {BLOCK_SIZE} a block, {rounds} rounds, one thread");
    println!("| hash | median ns/block | times ours |\n|---|---|---|\n| ours | {own:.0} | 1 |");
    for algorithm in HashProfile::ALGORITHMS {
        let seed = VllmAlgorithm::ALL.iter().any(|vllm| vllm.name() == algorithm).then_some("0");
        let profile = HashProfile::parse(algorithm, seed, None, None)?;
        let prompt = MirrorPrompt { extra_key: Some("a"), ..MirrorPrompt::tokens(&wide) };
        profile.block_hashes(&prompt, BLOCK_SIZE)?;
        let cost = nanos(rounds, &mut || drop(black_box(profile.block_hashes(&prompt, BLOCK_SIZE))));
        println!("| {algorithm} | {cost:.0} | {:.1} |", cost / own);
    }
    println!();
    Ok(())
}

fn nanos(rounds: usize, run: &mut dyn FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..rounds.max(1))
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos() as f64 / f64::from(BLOCKS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}
