//! What a run found, as a Markdown page and a plot.

pub(crate) mod figures;
pub(crate) mod page;
pub(crate) mod plot;
pub(crate) mod table;
