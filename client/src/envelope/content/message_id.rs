//! What names a message in other messages.
//!
//! It is the device that wrote it and the instant that this device put on it, which is signed in the
//! envelope and never given to two messages by one device. An envelope's own id would not do: it is of
//! one recipient box, so that each member of a group has another, and it changes when the envelope has
//! to be sealed under another counter. These two are the same in every copy and every try.

use std::fmt;
use std::str::FromStr;

use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, IdError};
use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};

/// Names a message, the same on all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The device that wrote it.
    pub sender: DeviceAddress,
    /// When, by that device's clock.
    pub written_at: Timestamp,
}

impl MessageId {
    pub(super) fn write(&self, writer: Writer) -> Writer {
        writer
            .fixed(self.sender.box_id.as_bytes())
            .fixed(self.sender.device.as_bytes())
            .u64(self.written_at.as_millis())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let box_id =
            BoxId::from_bytes(reader.fixed()?).map_err(|_| WireError::Invalid("box id"))?;
        Ok(Self {
            sender: DeviceAddress {
                box_id,
                device: DeviceId::from_bytes(reader.fixed()?),
            },
            written_at: Timestamp::from_millis(reader.u64()?),
        })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sender, self.written_at.as_millis())
    }
}

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let malformed = || IdError::Malformed {
            kind: "message id",
            expected: "<box id>/<device id>/<milliseconds>",
        };
        let (sender, millis) = text.rsplit_once('/').ok_or_else(malformed)?;
        let millis = millis.parse().map_err(|_| malformed())?;
        Ok(Self {
            sender: sender.parse()?,
            written_at: Timestamp::from_millis(millis),
        })
    }
}
