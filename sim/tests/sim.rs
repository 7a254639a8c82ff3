//! A few seeds with every commit. Many more: `cargo sim --seeds 1000`.

use kvindex_sim::Run;

#[test]
fn some_seeds_break_nothing() {
    for seed in 1..=24 {
        let report = Run { seed, ..Run::default() }.go();
        assert_eq!(report.violation, None, "seed {seed}: {}\n{}", report.plan, report.recent.join("\n"));
        assert!(
            report.committed.iter().sum::<usize>() > 20,
            "seed {seed} does next to nothing: {}",
            report.plan
        );
    }
}

/// Without `--cfg tokio_unstable` nothing decides in which order tasks wake, and seeds do not repeat.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_is_a_run_byte_for_byte() {
    for seed in [1, 2, 3, 5, 8, 13] {
        let [first, second] = [(); 2].map(|()| Run { seed, ..Run::default() }.go());
        assert_eq!(first.trace, second.trace, "seed {seed}: {}", first.plan);
    }
    let [one, other] = [21, 22].map(|seed| Run { seed, ..Run::default() }.go());
    assert_ne!(one.trace, other.trace);
}
