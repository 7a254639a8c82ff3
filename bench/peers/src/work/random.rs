//! Seeded randomness: one generator, so that every implementation, on every machine, gets the same work.

/// SplitMix64 (Steele, Lea, Flood 2014); the only source of randomness.
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

/// The finaliser of SplitMix64: a bijection that scatters its input over 64 bits.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        let out = mix(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        out
    }

    /// Uniform in `0..n`, by modulo: `n` is far below 2^32 everywhere here, so the bias is nothing.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipf over ranks `0..n` with weight (rank + 1)^-s, drawn from the table of cumulative weights.
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    pub(crate) fn new(n: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=n)
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|weight| *weight /= sum);
        Zipf(cumulative)
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.unit();
        self.0.partition_point(|&weight| weight <= at).min(self.0.len() - 1)
    }
}
