"""Envelopes: what is sealed for all devices of one box, and how it is opened."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from . import hpke, signing
from .content import Content, decode_content
from .errors import Malformed, NotGenuine
from .identity import MAX_DEVICES, KeyRecord, check_box_id, is_box_of
from .wire import Reader, Writer

VERSION = 1
SUITE = 1
INNER_VERSION = 1
INFO = b"rossby envelope v1"
BUCKETS = [512] + [size * 1024 for size in (1, 2, 4, 8, 16, 32, 48, 64, 80, 86)]
TAG = 16


# --- what is signed ------------------------------------------------------------------------------


def direct_conversation(one: bytes, other: bytes) -> bytes:
    """The conversation of two boxes, the same from both sides."""
    writer = Writer("rossby direct conversation v1")
    for box in sorted((one, other)):
        writer.fixed(box, 16)
    return hashlib.sha256(writer.done()).digest()[:16]


@dataclass(frozen=True)
class ChainPoint:
    """A version of a chain, and its hash there."""

    version: int
    hash: bytes

    @staticmethod
    def head_of(record: KeyRecord) -> ChainPoint:
        return ChainPoint(record.version, record.head)


@dataclass(frozen=True)
class Statement:
    """What the sender's device vouches for, besides the content itself."""

    sender_box: bytes
    sender_device: bytes
    recipient_box: bytes
    counter: int
    conversation: bytes
    written_at_ms: int
    sender_chain: ChainPoint
    recipient_chain: ChainPoint

    def write(self, writer: Writer) -> Writer:
        writer.u8(INNER_VERSION)
        for part in (self.sender_box, self.sender_device, self.recipient_box):
            writer.fixed(part, 16)
        writer.u64(self.counter).fixed(self.conversation, 16).u64(self.written_at_ms)
        for point in (self.sender_chain, self.recipient_chain):
            writer.u64(point.version).fixed(point.hash, 32)
        return writer

    @staticmethod
    def read(reader: Reader) -> Statement:
        if reader.u8() != INNER_VERSION:
            raise Malformed("inner bytes of another version")
        return Statement(
            sender_box=check_box_id(reader.fixed(16)),
            sender_device=reader.fixed(16),
            recipient_box=check_box_id(reader.fixed(16)),
            counter=reader.u64(),
            conversation=reader.fixed(16),
            written_at_ms=reader.u64(),
            sender_chain=ChainPoint(reader.u64(), reader.fixed(32)),
            recipient_chain=ChainPoint(reader.u64(), reader.fixed(32)),
        )

    def signed_bytes(self, commitment: bytes, content: bytes) -> bytes:
        writer = self.write(Writer("rossby envelope v1").u8(VERSION).u8(SUITE))
        return writer.fixed(commitment, 32).raw(hashlib.sha256(content).digest()).done()


# --- the body ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrap:
    device: bytes
    key_counter: int
    encapsulated: bytes
    sealed_key: bytes


@dataclass(frozen=True)
class Body:
    """A body, read and not yet believed."""

    commitment: bytes
    nonce: bytes
    wraps: list[Wrap]
    ciphertext: bytes
    #: Every byte before the ciphertext's length.
    header: bytes

    @staticmethod
    def read(data: bytes) -> Body:
        reader = Reader(data)
        if reader.u8() != VERSION:
            raise Malformed("a body of another version", "UNKNOWN_VERSION")
        if reader.u8() != SUITE:
            raise Malformed("a body of another suite", "UNKNOWN_SUITE")
        commitment, nonce, count = reader.fixed(32), reader.fixed(12), reader.u8()
        if not 1 <= count <= MAX_DEVICES:
            raise Malformed("no wraps, or too many")
        wraps: list[Wrap] = []
        for _ in range(count):
            wrap = Wrap(reader.fixed(16), reader.u64(), reader.fixed(1120), reader.fixed(48))
            if wraps and wraps[-1].device >= wrap.device:
                raise Malformed("wraps out of order")
            wraps.append(wrap)
        header = reader.taken
        ciphertext = reader.bytes()
        reader.end()
        if len(ciphertext) > BUCKETS[-1] + TAG:
            raise Malformed("a ciphertext too long")
        return Body(commitment, nonce, wraps, ciphertext, header)


def commitment_of(content_key: bytes) -> bytes:
    return hmac.digest(content_key, b"rossby content key v1", "sha256")


def wrap_aad(recipient: bytes, device: bytes, key_counter: int, commitment: bytes) -> bytes:
    writer = Writer("rossby wrap v1").fixed(recipient, 16).fixed(device, 16)
    return writer.u64(key_counter).fixed(commitment, 32).done()


def content_aad(header: bytes) -> bytes:
    return Writer("rossby content v1").raw(header).done()


def _header(commitment: bytes, nonce: bytes, wraps: list[Wrap]) -> bytes:
    writer = Writer().u8(VERSION).u8(SUITE).fixed(commitment, 32).fixed(nonce, 12).u8(len(wraps))
    for wrap in wraps:
        writer.fixed(wrap.device, 16).u64(wrap.key_counter)
        writer.fixed(wrap.encapsulated, 1120).fixed(wrap.sealed_key, 48)
    return writer.done()


def _padded(inner: bytes) -> bytes:
    for size in BUCKETS:
        if len(inner) <= size:
            return inner.ljust(size, b"\x00")
    raise ValueError("more than an envelope holds")


def seal(signing_seed: bytes, recipient: KeyRecord, statement: Statement, content: Content) -> bytes:
    """The body of an envelope that each device of the recipient can open."""
    content_key, nonce = os.urandom(32), os.urandom(12)
    commitment, encoded = commitment_of(content_key), content.encode()
    signature = signing.sign(signing_seed, statement.signed_bytes(commitment, encoded))
    inner = statement.write(Writer()).fixed(signature, 64).bytes(encoded).done()
    wraps = []
    for device, (key, _) in sorted(recipient.kem_keys.items()):
        aad = wrap_aad(statement.recipient_box, device, key.counter, commitment)
        encapsulated, sealed = hpke.seal(key.public, INFO, aad, content_key)
        wraps.append(Wrap(device, key.counter, encapsulated, sealed))
    if not wraps:
        raise ValueError("the recipient has no device with a KEM key")
    header = _header(commitment, nonce, wraps)
    ciphertext = ChaCha20Poly1305(content_key).encrypt(nonce, _padded(inner), content_aad(header))
    return Writer().raw(header).bytes(ciphertext).done()


# --- opening -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """Who reads, and what they know."""

    box: bytes
    device: bytes
    #: The device's KEM seeds by counter.
    kem_seeds: dict[int, bytes]
    record: KeyRecord
    sender_record: KeyRecord


@dataclass(frozen=True)
class Arrival:
    """An envelope as the service names it."""

    sender_box: bytes
    sender_device: bytes
    counter: int
    body: bytes


@dataclass(frozen=True)
class Opened:
    content: Content
    statement: Statement


def open_envelope(reading: Reading, arrival: Arrival) -> Opened:
    """What an envelope says; refuses it unless all of it holds, in the document's order."""
    body = Body.read(arrival.body)
    content_key = _unwrap(reading, body)
    if not hmac.compare_digest(commitment_of(content_key), body.commitment):
        raise NotGenuine("the content key is not the one committed to", "BAD_COMMITMENT")
    try:
        inner = ChaCha20Poly1305(content_key).decrypt(
            body.nonce, body.ciphertext, content_aad(body.header)
        )
    except InvalidTag as error:
        raise NotGenuine("the content does not decrypt", "CANNOT_DECRYPT") from error
    reader = Reader(inner)
    statement = Statement.read(reader)
    signature, content = reader.fixed(64), reader.bytes()
    padding = reader.rest()
    _check_addressing(reading, arrival, statement)
    _check_sender(reading, statement, signature, statement.signed_bytes(body.commitment, content))
    _check_point(statement.recipient_chain, reading.record, "OWN")
    if any(padding):
        raise Malformed("padding that is not zero", "BAD_PADDING")
    return Opened(decode_content(content), statement)


def _unwrap(reading: Reading, body: Body) -> bytes:
    for wrap in body.wraps:
        if wrap.device == reading.device:
            break
    else:
        raise NotGenuine("no wrap is for this device", "NOT_FOR_THIS_DEVICE")
    seed = reading.kem_seeds.get(wrap.key_counter)
    if seed is None:
        raise NotGenuine("a wrap for a key that this device has not", "NO_SUCH_KEY")
    aad = wrap_aad(reading.box, reading.device, wrap.key_counter, body.commitment)
    try:
        return hpke.open_sealed(seed, wrap.encapsulated, INFO, aad, wrap.sealed_key)
    except NotGenuine as error:
        raise NotGenuine(f"the content key does not unwrap: {error}", "CANNOT_UNWRAP") from error


def _check_addressing(reading: Reading, arrival: Arrival, statement: Statement) -> None:
    sender = (statement.sender_box, statement.sender_device)
    if sender != (arrival.sender_box, arrival.sender_device):
        raise NotGenuine("signed as another sender", "WRONG_SENDER")
    if statement.recipient_box != reading.box:
        raise NotGenuine("written to another box", "WRONG_RECIPIENT")
    if statement.counter != arrival.counter:
        raise NotGenuine("signed under another counter", "WRONG_COUNTER")


def _check_sender(reading: Reading, statement: Statement, signature: bytes, signed: bytes) -> None:
    record, version = reading.sender_record, statement.sender_chain.version
    if not is_box_of(statement.sender_box, record.hashes[0]):
        raise NotGenuine("the sender's record is of another box", "SENDER_CHAIN_FORKED")
    # First the signature, by the chain as it is known: only the real sender may raise the alarm of
    # a forked chain.
    key = record.signing_key_at(version, statement.sender_device)
    if key is None:
        code = "SENDER_RECORD_TOO_OLD" if version > record.version else "UNKNOWN_DEVICE"
        raise NotGenuine("the device is not in the sender's chain", code)
    signing.verify(key, signature, signed, "the envelope")
    _check_point(statement.sender_chain, record, "SENDER")


def _check_point(point: ChainPoint, record: KeyRecord, whose: str) -> None:
    """Whether the sender saw the chain that is known here."""
    if point.version > record.version:
        raise NotGenuine("a chain that is newer than the one known", f"{whose}_RECORD_TOO_OLD")
    if record.hashes[point.version] != point.hash:
        raise NotGenuine("another chain than the one known", f"{whose}_CHAIN_FORKED")
