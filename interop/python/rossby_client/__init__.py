"""A Rossby client in Python, written from docs/PROTOCOL.md and mailbox.proto alone.

It exists to prove that the document is enough, and to be read: no line of it knows the Rust code.
"""

from .connection import Connection
from .device import Device, Received
from .envelope import File, Text, Unknown
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
    "Device",
    "File",
    "Identifier",
    "KeyRecord",
    "Malformed",
    "NotGenuine",
    "Received",
    "RossbyError",
    "ServiceError",
    "Text",
    "Unauthentic",
    "Unknown",
    "safety_number",
]
