//! What requests' fields must be, told in words that every dialect can answer with.

use axum::http::StatusCode;
use kvindex_proto::v1;
use std::ops::RangeInclusive;

use super::fields::{Fields, Flaw, List, Scalar};
use super::refusal::Refusal;

impl Fields {
    /// A text; `None` when it is not there, or null.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.one(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::of(name, "invalid_type", "must be a text")),
        }
    }

    /// A text that must be there and say something.
    pub(super) fn required_text(&self, name: &str) -> Result<&str, Refusal> {
        match self.text(name)? {
            None => Err(Refusal::of(name, "missing", "is required")),
            Some("") => Err(Refusal::of(name, "invalid_value", "must not be empty")),
            Some(text) => Ok(text),
        }
    }

    /// A whole number; `None` when it is not there, or null.
    pub(super) fn number<T: TryFrom<i128>>(
        &self,
        name: &str,
        range: &RangeInclusive<i128>,
    ) -> Result<Option<T>, Refusal> {
        let (least, most) = (range.start(), range.end());
        let wrong = |value: &str| format!("is {value}, must be a whole number from {least} to {most}");
        match self.one(name) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Int(value)) => {
                let number = T::try_from(*value).ok().filter(|_| range.contains(value));
                number.map(Some).ok_or_else(|| Refusal::of(name, "out_of_range", wrong(&value.to_string())))
            }
            Some(_) => Err(Refusal::of(name, "invalid_type", wrong("none"))),
        }
    }

    /// A whole number that must be there.
    pub(super) fn required_number<T: TryFrom<i128>>(
        &self,
        name: &str,
        range: &RangeInclusive<i128>,
    ) -> Result<T, Refusal> {
        self.number(name, range)?.ok_or_else(|| Refusal::of(name, "missing", "is required"))
    }

    /// Moves the token ids, up to `limit`, into a prompt, in the form in which they came; answers whether there are none.
    pub(super) fn move_tokens(
        &mut self,
        name: &str,
        prompt: &mut v1::Prompt,
        limit: usize,
    ) -> Result<bool, Refusal> {
        match self.take_list(name) {
            None => return Err(Refusal::of(name, "missing", "is required")),
            Some(List::Tokens { values, found, flaw }) => {
                check(name, "token ids from 0 to 4294967295", flaw, found, limit)?;
                prompt.token_ids = values;
            }
            Some(List::Bytes(bytes)) if bytes.len() % 4 != 0 => {
                let message = format!("{} bytes is not a multiple of 4, one token each", bytes.len());
                return Err(Refusal::of(name, "invalid_value", message));
            }
            Some(List::Bytes(bytes)) => prompt.token_ids_le = bytes.into(),
            Some(_) => return Err(Refusal::of(name, "not_array", "must be a list of token ids")),
        }
        Ok(prompt.token_ids.is_empty() && prompt.token_ids_le.is_empty())
    }

    /// Hashes, up to `limit`; `None` when there are none of this name.
    pub(super) fn hashes(
        &mut self,
        name: &str,
        limit: usize,
        may_be_negative: bool,
    ) -> Result<Option<Vec<u64>>, Refusal> {
        match self.take_list(name) {
            None => Ok(None),
            Some(List::Numbers { values, found, negative, flaw }) => {
                let negative = negative.filter(|_| !may_be_negative).map(|index| (index, Flaw::Range));
                let first = [flaw, negative].into_iter().flatten().min_by_key(|(index, _)| *index);
                check(name, "hashes of 64 bits", first, found, limit)?;
                Ok(Some(values))
            }
            Some(_) => Err(Refusal::of(name, "not_array", "must be a list of hashes")),
        }
    }
}

fn check(
    name: &str,
    what: &str,
    flaw: Option<(usize, Flaw)>,
    found: usize,
    limit: usize,
) -> Result<(), Refusal> {
    if let Some((index, flaw)) = flaw {
        let reason = if flaw == Flaw::Kind { "invalid_type" } else { "out_of_range" };
        return Err(Refusal::of(name, reason, format!("value {index} is none of {what}")).at(index));
    }
    if found > limit {
        let message = format!("{found} of them, the limit is {limit} (max_prompt_tokens)");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(Refusal { status, ..Refusal::of(name, "out_of_range", message) });
    }
    Ok(())
}
