//! What nodes say to each other over a link: frames, in the canonical encoding of
//! [`rossby_domain::wire`], behind a version and a kind.
//!
//! ```text
//!   u8 version · u8 kind · u64 id · body
//!     Call          a request to a replica (or the node), answered by one Answer with its id
//!     StreamAppend  one of a stream of appends to a replica; each is answered, in order
//!     StreamEnd     no more on this stream
//!     Answer        to a call
//!     StreamAnswer  to one append of a stream; a refusal ends the stream
//!     Hello         the first word of who is asked: what it promises a leader (`lease.rs`). Its id is 0
//! ```
//!
//! A frame that can not be decoded breaks the link: its sender does not speak our language.

mod message;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::wire::{Reader, WireError, Writer};

pub(crate) use message::{Answer, Append, MAX_RESTING, Refusal, Request, StreamOutcome, Target};

/// The most bytes that a frame may have. Transports must let frames of this size pass.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

const FRAME_VERSION: u8 = 1;
const KIND_CALL: u8 = 1;
const KIND_STREAM_APPEND: u8 = 2;
const KIND_STREAM_END: u8 = 3;
const KIND_ANSWER: u8 = 16;
const KIND_STREAM_ANSWER: u8 = 17;
const KIND_HELLO: u8 = 18;
const RESULT_OK: u8 = 0;
const RESULT_REFUSED: u8 = 1;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Sent by a version of this program that speaks otherwise.
    #[error("frame version {0} is not known")]
    Version(u8),
    /// Of no kind that there is.
    #[error("frame kind {0} is not known")]
    Kind(u8),
    /// Larger than [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
    /// Damaged inside.
    #[error("frame is malformed: {0}")]
    Malformed(#[from] WireError),
}

/// One message on a link.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Call {
        id: u64,
        to: Target,
        request: Request,
    },
    StreamAppend {
        id: u64,
        to: Target,
        append: Append,
    },
    StreamEnd {
        id: u64,
    },
    Answer {
        id: u64,
        answer: Result<Answer, Refusal>,
    },
    StreamAnswer {
        id: u64,
        answer: Result<StreamOutcome, Refusal>,
    },
    Hello {
        /// For so many milliseconds, at least, its replicas elect nobody else after they heard from a leader.
        promise_ms: u64,
    },
}

impl Frame {
    /// The bytes of this frame.
    pub(crate) fn encode(&self) -> Bytes {
        let header = |kind: u8, id: u64| Writer::default().u8(FRAME_VERSION).u8(kind).u64(id);
        let writer = match self {
            Self::Call { id, to, request } => request.write(to.write(header(KIND_CALL, *id))),
            Self::StreamAppend { id, to, append } => {
                message::write_append(to.write(header(KIND_STREAM_APPEND, *id)), append)
            }
            Self::StreamEnd { id } => header(KIND_STREAM_END, *id),
            Self::Answer { id, answer } => {
                write_result(header(KIND_ANSWER, *id), answer, Answer::write)
            }
            Self::StreamAnswer { id, answer } => write_result(
                header(KIND_STREAM_ANSWER, *id),
                answer,
                message::write_stream_outcome,
            ),
            Self::Hello { promise_ms } => header(KIND_HELLO, 0).u64(*promise_ms),
        };
        writer.finish().into()
    }

    /// The frame in these bytes. Entries inside it share them.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = reader.u8()?;
        let id = reader.u64()?;
        let frame = match kind {
            KIND_CALL => {
                let to = Target::read(&mut reader)?;
                Self::Call {
                    id,
                    to,
                    request: Request::read(&mut reader, bytes)?,
                }
            }
            KIND_STREAM_APPEND => {
                let to = Target::read(&mut reader)?;
                Self::StreamAppend {
                    id,
                    to,
                    append: message::read_append(&mut reader, bytes)?,
                }
            }
            KIND_STREAM_END => Self::StreamEnd { id },
            KIND_ANSWER => Self::Answer {
                id,
                answer: read_result(&mut reader, Answer::read)?,
            },
            KIND_STREAM_ANSWER => {
                let answer = read_result(&mut reader, message::read_stream_outcome)?;
                Self::StreamAnswer { id, answer }
            }
            KIND_HELLO if id != 0 => return Err(WireError::Invalid("id").into()),
            KIND_HELLO => Self::Hello {
                promise_ms: reader.u64()?,
            },
            kind => return Err(FrameError::Kind(kind)),
        };
        reader.finish()?;
        Ok(frame)
    }
}

fn write_result<T>(
    writer: Writer,
    result: &Result<T, Refusal>,
    write: impl FnOnce(&T, Writer) -> Writer,
) -> Writer {
    match result {
        Ok(value) => write(value, writer.u8(RESULT_OK)),
        Err(refusal) => refusal.write(writer.u8(RESULT_REFUSED)),
    }
}

fn read_result<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Result<T, Refusal>, WireError> {
    match reader.u8()? {
        RESULT_OK => Ok(Ok(read(reader)?)),
        RESULT_REFUSED => Ok(Err(Refusal::read(reader)?)),
        _ => Err(WireError::Invalid("result")),
    }
}

impl Target {
    fn write(self, writer: Writer) -> Writer {
        writer.u32(self.group.0).u64(self.replica.0)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            group: GroupId(reader.u32()?),
            replica: ReplicaId(reader.u64()?),
        })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::frames;
