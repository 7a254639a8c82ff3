//! gRPC messages walked as their bytes come, before they are decoded: the parts that [`parts`](super::parts) tells of
//! are counted, everything else is passed over. A message that holds too much is refused before there is more of it
//! in memory than its bytes.

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

use super::error::{ApiError, Kind};
use super::parts::{Bounds, PLAIN, Shape};
use crate::config::ApiLimits;

/// Flag and length before each message.
const HEAD: usize = 5;

/// How deep the shapes are nested: a published batch's event's block's key.
const DEPTH: usize = 4;

/// Most fields of one shape.
const FIELDS: usize = 3;

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// So many bytes of it came.
    Head(usize),
    Key,
    /// A number, which is passed over.
    Number,
    /// The length of this field.
    Length(u32),
    /// So many bytes are passed over.
    Rest(usize),
    /// So many bytes of packed numbers are counted.
    Numbers(usize),
}

/// A message, or one within another, that has not ended.
#[derive(Debug)]
struct Level {
    shape: &'static Shape,
    /// Bytes that are still to come, without those of a message within it that has begun.
    left: usize,
    counts: [usize; FIELDS],
}

impl Level {
    fn new(shape: &'static Shape, left: usize) -> Self {
        Self { shape, left, counts: [0; FIELDS] }
    }
}

/// How far the messages of one body are.
#[derive(Debug)]
pub(super) struct Walker {
    bounds: Bounds,
    next: Next,
    head: [u8; HEAD],
    levels: Vec<Level>,
    /// The number that is being read, and how many bits of it came.
    number: u64,
    bits: u32,
    /// What the message's parts take.
    taken: usize,
    /// Where in the last bytes read the last message ended that did in them.
    whole: usize,
}

impl Walker {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            next: Next::Head(0),
            head: [0; HEAD],
            levels: Vec::with_capacity(DEPTH),
            number: 0,
            bits: 0,
            taken: 0,
            whole: 0,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When a message is too long, holds too much, or is none. Nothing may be read any more then; messages that ended
    /// before it are in order ([`Self::whole`]).
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), ApiError> {
        let length = bytes.len();
        self.whole = 0;
        while let Some((first, behind)) = bytes.split_first() {
            match self.next {
                Next::Rest(left) => {
                    let passed = left.min(bytes.len());
                    bytes = bytes.get(passed..).unwrap_or_default();
                    self.pass_over(left - passed);
                }
                Next::Numbers(left) => {
                    let (these, others) = bytes.split_at(left.min(bytes.len()));
                    self.bounds.add_numbers(these, &mut self.taken)?;
                    bytes = others;
                    self.pass_numbers(left - these.len());
                }
                Next::Head(came) => {
                    bytes = behind;
                    self.begin(came, *first)?;
                }
                Next::Key | Next::Number | Next::Length(_) => {
                    bytes = behind;
                    self.digit(*first)?;
                }
            }
            if matches!(self.next, Next::Head(0)) {
                self.whole = length - bytes.len();
            }
        }
        Ok(())
    }

    /// How many of the last bytes read belong to messages that have ended.
    fn whole(&self) -> usize {
        self.whole
    }

    fn begin(&mut self, came: usize, byte: u8) -> Result<(), ApiError> {
        if let Some(place) = self.head.get_mut(came) {
            *place = byte;
        }
        if came + 1 < HEAD {
            self.next = Next::Head(came + 1);
            return Ok(());
        }
        let [flag, length @ ..] = self.head;
        let length = u32::from_be_bytes(length) as usize;
        self.bounds.length(length)?;
        self.taken = 0;
        if flag == 0 {
            self.levels.push(Level::new(self.bounds.shape, length));
            self.end_field();
        } else {
            // Compressed, which the services behind refuse as a whole.
            self.pass_over(length);
        }
        Ok(())
    }

    /// One byte of a number, seven bits of which count.
    fn digit(&mut self, byte: u8) -> Result<(), ApiError> {
        let level = self.levels.last_mut().ok_or_else(malformed)?;
        level.left = level.left.checked_sub(1).ok_or_else(malformed)?;
        // The tenth has one bit.
        if self.bits == 63 && byte > 1 {
            return Err(malformed());
        }
        self.number |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        if byte & 0x80 != 0 {
            return Ok(());
        }
        let number = std::mem::take(&mut self.number);
        self.bits = 0;
        match self.next {
            Next::Key => self.key(number),
            Next::Length(field) => self.field(field, number),
            Next::Number | Next::Head(_) | Next::Rest(_) | Next::Numbers(_) => {
                self.end_field();
                Ok(())
            }
        }
    }

    fn key(&mut self, key: u64) -> Result<(), ApiError> {
        let field = u32::try_from(key).map_err(|_| malformed())? >> 3;
        match key & 7 {
            _ if field == 0 => Err(malformed()),
            0 => {
                self.next = Next::Number;
                Ok(())
            }
            1 => self.fixed(8),
            2 => {
                self.next = Next::Length(field);
                Ok(())
            }
            5 => self.fixed(4),
            // Groups, which the third version of the language has not.
            _ => Err(malformed()),
        }
    }

    fn fixed(&mut self, bytes: usize) -> Result<(), ApiError> {
        let level = self.levels.last_mut().ok_or_else(malformed)?;
        level.left = level.left.checked_sub(bytes).ok_or_else(malformed)?;
        self.pass_over(bytes);
        Ok(())
    }

    /// A field of so many bytes begins: a message, a text, or many numbers.
    fn field(&mut self, number: u32, length: u64) -> Result<(), ApiError> {
        let length = usize::try_from(length).map_err(|_| malformed())?;
        let is_counted = self.levels.len() <= self.bounds.counted;
        let level = self.levels.last_mut().ok_or_else(malformed)?;
        level.left = level.left.checked_sub(length).ok_or_else(malformed)?;
        let mut fields = level.shape.fields.iter().zip(&mut level.counts);
        let Some((field, count)) = fields.find(|(field, _)| field.number == number) else {
            self.pass_over(length);
            return Ok(());
        };
        if field.is_numbers() {
            self.pass_numbers(length);
            return Ok(());
        }
        *count += 1;
        if is_counted {
            self.bounds.count(field, *count)?;
        }
        self.bounds.add(field, &mut self.taken)?;
        if std::ptr::eq(field.inner, &raw const PLAIN) {
            self.pass_over(length);
        } else {
            self.levels.push(Level::new(field.inner, length));
            self.end_field();
        }
        Ok(())
    }

    fn pass_over(&mut self, bytes: usize) {
        if bytes == 0 {
            self.end_field();
        } else {
            self.next = Next::Rest(bytes);
        }
    }

    fn pass_numbers(&mut self, bytes: usize) {
        if bytes == 0 {
            self.end_field();
        } else {
            self.next = Next::Numbers(bytes);
        }
    }

    /// What has ended with the field that just did?
    fn end_field(&mut self) {
        while self.levels.last().is_some_and(|level| level.left == 0) {
            self.levels.pop();
        }
        self.next = if self.levels.is_empty() { Next::Head(0) } else { Next::Key };
    }
}

fn malformed() -> ApiError {
    ApiError::new(Kind::Invalid, "the message is not one of protobuf's")
}

/// Whether one message of a call, without its head, holds no more than it may.
pub(crate) fn walk(call: &str, message: &[u8], limits: &ApiLimits) -> bool {
    let mut walker = Walker::new(Bounds::of(call, limits));
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = walker.read(&[0]).and_then(|()| walker.read(&length));
    head.and_then(|()| walker.read(message)).is_ok()
}

/// A body whose messages are walked on their way to the service.
pub(super) struct Walked {
    body: Body,
    walker: Walker,
    /// Why nothing is handed over any more, once it is not.
    refused: Option<Status>,
}

impl Walked {
    pub(super) fn around(body: Body, bounds: Bounds) -> Body {
        Body::new(Self { body, walker: Walker::new(bounds), refused: None })
    }
}

impl HttpBody for Walked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(refused) = this.refused.take() {
            return Poll::Ready(Some(Err(axum::Error::new(refused))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let chunk = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
        let Some(Err(refused)) = chunk.map(|chunk| this.walker.read(chunk)) else {
            return Poll::Ready(frame);
        };
        let refused = Status::from(refused);
        // A stream's earlier questions are answered, however they were cut into frames.
        let whole = chunk.map(|chunk| chunk.slice(..this.walker.whole())).filter(|whole| !whole.is_empty());
        Poll::Ready(Some(match whole {
            Some(whole) => {
                this.refused = Some(refused);
                Ok(Frame::data(whole))
            }
            None => Err(axum::Error::new(refused)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.refused.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "walker_test.rs"]
mod tests;
