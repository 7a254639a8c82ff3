//! Engines found in Kubernetes. What is seen (`seen`) goes through the rules (`engines`) to the workers that shall be
//! known; `plan` compares them with those that are, and `crate::roll` registers and unregisters. `kubernetes` is the only
//! room that knows the API; everything else is plain values, and tested without it.

mod condition;
mod definition;
mod engines;
mod gauges;
mod kubernetes;
mod nearest;
mod plan;
mod roles;
mod seen;
mod selector;
mod service;
mod states;
mod survey;
mod verdict;
mod view;

pub use nearest::NearTerm;
pub use selector::{Selector, SelectorError, Term, Test};
pub(crate) use service::start;
pub use survey::{Survey, SurveyError, survey};
pub use verdict::{PodReport, Selection, ServiceReport, Verdict};
