//! Between protocol messages and the rooms behind the API. Together with the handlers the only place that
//! knows the messages; every limit and every malformed field is caught here.

mod answer;
mod definition;
mod events;
mod question;

pub(crate) use answer::{explain_response, hot_response, match_response, watch_event, worker};
pub(crate) use definition::raw_worker;
pub(crate) use events::publication;
pub(crate) use question::{MAX_ITEMS, Question};
