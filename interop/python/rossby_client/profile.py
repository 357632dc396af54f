"""Profiles: what a person shows of themselves, sealed for those who have the key."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from . import signing
from .errors import Malformed, NotGenuine
from .identity import KeyRecord
from .wire import Reader, Writer

VERSION = 1
CONTENT_VERSION = 1
HEAD = 1 + 16 + 8 + 12


@dataclass(frozen=True)
class Profile:
    """A profile, as its owner signed it."""

    version: int
    name: str
    about: str
    media_type: str
    picture: bytes


def key_id(key: bytes) -> bytes:
    return hmac.digest(key, b"rossby profile key v1", "sha256")[:16]


def set_statement(box: bytes, device: bytes, version: int, sealed: bytes) -> bytes:
    """What a device signs to have the service keep a sealed profile."""
    writer = Writer("rossby set profile v1").fixed(box, 16).fixed(device, 16).u64(version)
    return writer.fixed(hashlib.sha256(sealed).digest(), 32).done()


def open_profile(key: bytes, box: bytes, record: KeyRecord, sealed: bytes) -> Profile:
    """The profile of a box, or a refusal."""
    head = Reader(sealed)
    if head.u8() != VERSION:
        raise Malformed("a profile of another form", "UNKNOWN_VERSION")
    if head.fixed(16) != key_id(key):
        raise NotGenuine("sealed under another key", "OTHER_KEY")
    version, nonce = head.u64(), head.fixed(12)
    aad = Writer("rossby sealed profile v1").fixed(box, 16).done() + head.taken
    try:
        inner = Reader(ChaCha20Poly1305(key).decrypt(nonce, sealed[HEAD:], aad))
    except InvalidTag as error:
        raise NotGenuine("the profile does not decrypt", "CANNOT_DECRYPT") from error
    device, signature, content = inner.fixed(16), inner.fixed(64), inner.bytes()
    if any(inner.rest()):
        raise Malformed("padded with something", "BAD_PADDING")
    signer = record.signing_key_at(record.version, device)
    if signer is None:
        raise NotGenuine("not a device of this box", "BAD_SIGNATURE")
    statement = Writer("rossby profile v1").fixed(box, 16).fixed(device, 16).u64(version)
    statement = statement.fixed(hashlib.sha256(content).digest(), 32).done()
    signing.verify(signer, signature, statement, "a profile")
    reader = Reader(content)
    if reader.u8() != CONTENT_VERSION:
        raise Malformed("a profile of another form", "UNKNOWN_VERSION")
    parts = [reader.bytes() for _ in range(4)]
    reader.end()
    name, about, media_type = (part.decode() for part in parts[:3])
    return Profile(version, name, about, media_type, parts[3])
