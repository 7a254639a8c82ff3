//! The answers of Mooncake's conductor, as JSON or MessagePack: cumulative counts, rank by rank.
