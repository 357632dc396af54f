//! Messages in the framing of gRPC ("gRPC over HTTP/2", Length-Prefixed-Message), as they are: a byte
//! that says whether it is compressed, four of length, the message.
//!
//! A message that came in one piece is handed on without a copy, and one that goes out is written
//! from where it is.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tonic::Status;

use crate::call::CallStream;
use crate::error::{ApiError, Code};

/// Bytes in front of each message.
const PREFIX_BYTES: usize = 5;
/// Up to here, a message is copied behind its prefix rather than sent in a frame of its own.
const COPIED_BYTES: usize = 4096;

/// Nothing here is compressed: what is sealed does not shrink.
pub(super) fn refuse_compression(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        None => Ok(()),
        Some(encoding) if encoding == "identity" => Ok(()),
        Some(_) => Err(Status::unimplemented("compressed messages are not taken")),
    }
}

/// The one message of a request, of `limit` bytes at most.
pub(super) async fn receive<B>(body: B, limit: usize) -> Result<Bytes, Status>
where
    B: Body,
    B::Error: Into<tonic::codegen::StdError>,
{
    let mut body = pin!(body);
    let mut whole = Received::default();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        if let Ok(mut data) = frame.into_data() {
            whole.add(data.copy_to_bytes(data.remaining()));
            whole.check(limit)?;
        }
    }
    Ok(whole.into_message()?)
}

/// What has come of a request.
#[derive(Debug, Default)]
struct Received {
    first: Bytes,
    /// All of it, once it is in more than one piece.
    joined: BytesMut,
}

impl Received {
    fn add(&mut self, piece: Bytes) {
        if self.bytes().is_empty() {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&piece);
    }

    fn bytes(&self) -> &[u8] {
        if self.joined.is_empty() {
            &self.first
        } else {
            &self.joined
        }
    }

    /// The length of the message, once its prefix is there.
    fn length(&self) -> Result<Option<usize>, ApiError> {
        let Some((prefix, _)) = self.bytes().split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(unreadable());
        }
        let length = usize::try_from(u32::from_be_bytes(length));
        Ok(Some(length.unwrap_or(usize::MAX)))
    }

    /// Refuses what will not be a message of ours, before the rest of it comes.
    fn check(&self, limit: usize) -> Result<(), ApiError> {
        let Some(length) = self.length()? else {
            return Ok(());
        };
        if length > limit {
            return Err(Code::RequestTooLarge.into());
        }
        if self.bytes().len() - PREFIX_BYTES > length {
            return Err(ApiError::invalid("the request has more than one message"));
        }
        Ok(())
    }

    fn into_message(self) -> Result<Bytes, ApiError> {
        if self.bytes().is_empty() {
            return Err(ApiError::invalid("the request has no message"));
        }
        let length = self.length()?.ok_or_else(unreadable)?;
        let mut bytes = if self.joined.is_empty() {
            self.first
        } else {
            self.joined.freeze()
        };
        if bytes.len() != PREFIX_BYTES.saturating_add(length) {
            return Err(unreadable());
        }
        bytes.advance(PREFIX_BYTES);
        Ok(bytes)
    }
}

fn unreadable() -> ApiError {
    ApiError::invalid("the gRPC message can't be read")
}

/// A message on its way out: its prefix, with it if it is short, and what is left to send.
fn framed(message: Bytes) -> Result<(Bytes, Option<Bytes>), Status> {
    let length = u32::try_from(message.len())
        .map_err(|_| ApiError::internal("a message is too long for its frame"))?;
    let copied = message.len() <= COPIED_BYTES;
    let mut start = BytesMut::with_capacity(PREFIX_BYTES + if copied { message.len() } else { 0 });
    start.put_u8(0);
    start.put_u32(length);
    if copied {
        start.put(message);
        return Ok((start.freeze(), None));
    }
    Ok((start.freeze(), Some(message)))
}

/// How a call or a stream ended.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    if status.add_header(&mut trailers).is_err() {
        // What can't be said in headers is not said.
        trailers.insert(Status::GRPC_STATUS, tonic_code(status.code()));
    }
    trailers
}

fn tonic_code(code: tonic::Code) -> http::HeaderValue {
    http::HeaderValue::from(i32::from(code))
}

/// The body of an answer of one message.
#[derive(Debug)]
pub(super) struct Reply {
    message: Option<Bytes>,
    rest: Option<Bytes>,
    done: bool,
}

impl Reply {
    pub(super) fn new(message: Bytes) -> Self {
        Self {
            message: Some(message),
            rest: None,
            done: false,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(message) = self.message.take() {
            let (start, rest) = framed(message)?;
            self.rest = rest;
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if std::mem::replace(&mut self.done, true) {
            return Poll::Ready(None);
        }
        let mut ok = HeaderMap::with_capacity(1);
        ok.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(ok))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

/// The body of an answer of many messages.
pub(super) struct Messages {
    stream: CallStream,
    rest: Option<Bytes>,
    done: bool,
}

impl Messages {
    pub(super) fn new(stream: CallStream) -> Self {
        Self {
            stream,
            rest: None,
            done: false,
        }
    }

    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.done = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status)))))
    }
}

impl Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        match ready!(self.stream.as_mut().poll_next(context)) {
            None => self.end(&Status::ok("")),
            Some(Err(status)) => self.end(&status),
            Some(Ok(message)) => match framed(message) {
                Ok((start, rest)) => {
                    self.rest = rest;
                    Poll::Ready(Some(Ok(Frame::data(start))))
                }
                Err(status) => self.end(&status),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

#[cfg(test)]
mod tests;
