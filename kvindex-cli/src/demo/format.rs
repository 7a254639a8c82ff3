//! The two forms of output: for people and for programs.

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Tables and sentences.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
}
