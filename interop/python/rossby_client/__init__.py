"""A Rossby client in Python, written from docs/PROTOCOL.md and mailbox.proto alone.

It exists to prove that the document is enough, and to be read: no line of it knows the Rust code.
"""

from .connection import Connection
from .content import (
    Control,
    Delete,
    Edit,
    File,
    Location,
    MessageId,
    Picture,
    Reaction,
    Receipt,
    Reply,
    Text,
    Unknown,
    Voice,
)
from .device import Device, Received
from .errors import (
    ConnectionFailed,
    Malformed,
    NotGenuine,
    RossbyError,
    ServiceError,
    Unauthentic,
)
from .identity import Identifier, KeyRecord
from .safety_number import safety_number

__all__ = [
    "Connection",
    "ConnectionFailed",
    "Control",
    "Delete",
    "Device",
    "Edit",
    "File",
    "Identifier",
    "KeyRecord",
    "Location",
    "Malformed",
    "MessageId",
    "NotGenuine",
    "Picture",
    "Reaction",
    "Received",
    "Receipt",
    "Reply",
    "RossbyError",
    "ServiceError",
    "Text",
    "Unauthentic",
    "Unknown",
    "Voice",
    "safety_number",
]
