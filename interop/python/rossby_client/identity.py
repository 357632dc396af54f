"""Identities: device ids, box ids, and the key record with its signed chain."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass, field

from . import signing
from .errors import Malformed, NotGenuine
from .hpke import XWing
from .wire import Reader, Writer

FORMAT = 1
SUITE_XWING = 1
MAX_LINKS = 256
MAX_DEVICES = 8
MAX_RECORD_BYTES = 64 * 1024
ADD_DEVICE, REMOVE_DEVICE = 1, 2
BY_DEVICE, BY_RECOVERY = 1, 2
PHONE, EMAIL = 1, 2
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LOCAL = re.compile(rf"{ATOM}(?:\.{ATOM})*")
# What Unicode calls white space, as Rust trims it. Python would strip U+001C to U+001F besides.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# At least two labels, the last one not a number: that would be an address.
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})*\.(?![0-9]+$){LABEL}")


def device_id(signing_key: bytes) -> bytes:
    """The name of the device with this Ed25519 public key."""
    return hashlib.sha256(b"rossby device v1" + signing_key).digest()[:16]


def box_id(birth_partition: int, genesis_hash: bytes) -> bytes:
    """The box of this genesis in this partition: a UUIDv8 of 12 + 110 free bits."""
    free = birth_partition << 110 | int.from_bytes(genesis_hash[:16], "big") >> 18
    custom_a, custom_b, custom_c = free >> 74, free >> 62 & 0xFFF, free & (1 << 62) - 1
    value = custom_a << 80 | 8 << 76 | custom_b << 64 | 0b10 << 62 | custom_c
    return value.to_bytes(16, "big")


def check_box_id(data: bytes) -> bytes:
    """The bytes, if they can be a box id at all."""
    if len(data) != 16 or data[6] >> 4 != 8 or data[8] >> 6 != 0b10:
        raise Malformed("not a box id")
    return data


def is_box_of(data: bytes, genesis_hash: bytes) -> bool:
    """Whether a box id was made of this genesis, in whichever partition."""
    partition = int.from_bytes(check_box_id(data)[:2], "big") >> 4
    return data == box_id(partition, genesis_hash)


def address(box: bytes, device: bytes) -> str:
    """A device address as text: the Hawk id, and what a token is sealed for."""
    return f"{uuid.UUID(bytes=box)}/{device.hex()}"


@dataclass(frozen=True)
class Identifier:
    """A phone (E.164) or an email address, in the one form in which it is signed."""

    kind: int
    text: str

    @staticmethod
    def phone(text: str) -> Identifier:
        bare = re.sub(r"[ .()-]", "", text)
        match = re.fullmatch(r"(?:\+|00)([1-9][0-9]{7,14})", bare)
        if match is None:
            raise Malformed("not a phone number with its country code", "INVALID_IDENTIFIER")
        return Identifier(PHONE, "+" + match[1])

    @staticmethod
    def email(text: str) -> Identifier:
        text = text.strip(WHITE_SPACE)
        local, _, domain = text.partition("@")
        good = len(text) <= 254 and len(local) <= 64 and LOCAL.fullmatch(local)
        if not good or DOMAIN.fullmatch(domain) is None:
            raise Malformed("not an email address", "INVALID_IDENTIFIER")
        return Identifier(EMAIL, text.lower())


@dataclass(frozen=True)
class Genesis:
    device_key: bytes
    recovery_key: bytes
    nonce: bytes

    def write(self, writer: Writer) -> Writer:
        for part in (self.device_key, self.recovery_key, self.nonce):
            writer.fixed(part, 32)
        return writer

    def hash(self) -> bytes:
        return hashlib.sha256(self.write(Writer("rossby genesis v1")).done()).digest()


@dataclass(frozen=True)
class Link:
    """One change of the devices: the key of one to add, or the id of one to remove."""

    version: int
    previous: bytes
    change: int
    subject: bytes
    #: The device that signed; None for the recovery key.
    signer: bytes | None
    signature: bytes

    def _change(self, writer: Writer) -> Writer:
        writer.u64(self.version).fixed(self.previous, 32)
        writer.u8(self.change).fixed(self.subject, 32 if self.change == ADD_DEVICE else 16)
        if self.signer is None:
            return writer.u8(BY_RECOVERY)
        return writer.u8(BY_DEVICE).fixed(self.signer, 16)

    def statement(self) -> bytes:
        return self._change(Writer("rossby link v1")).done()

    def write(self, writer: Writer) -> Writer:
        return self._change(writer).fixed(self.signature, 64)

    def hash(self) -> bytes:
        return hashlib.sha256(self.write(Writer("rossby link hash v1")).done()).digest()

    @staticmethod
    def read(reader: Reader) -> Link:
        version, previous, change = reader.u64(), reader.fixed(32), reader.u8()
        if change not in (ADD_DEVICE, REMOVE_DEVICE):
            raise Malformed("a change of another kind")
        subject = reader.fixed(32 if change == ADD_DEVICE else 16)
        by = reader.u8()
        if by not in (BY_DEVICE, BY_RECOVERY):
            raise Malformed("a signer of another kind")
        signer = reader.fixed(16) if by == BY_DEVICE else None
        return Link(version, previous, change, subject, signer, reader.fixed(64))


@dataclass(frozen=True)
class KemKey:
    """A device's X-Wing public key, signed by the device."""

    counter: int
    public: bytes
    signature: bytes
    suite: int = SUITE_XWING

    @staticmethod
    def statement_of(device: bytes, suite: int, counter: int, public: bytes) -> bytes:
        writer = Writer("rossby kem key v1").fixed(device, 16)
        return writer.u8(suite).u64(counter).bytes(public).done()

    def write(self, writer: Writer) -> Writer:
        writer.u8(self.suite).u64(self.counter).bytes(self.public)
        return writer.fixed(self.signature, 64)

    @staticmethod
    def read(reader: Reader) -> KemKey:
        suite, counter, public = reader.u8(), reader.u64(), reader.bytes()
        if suite != SUITE_XWING or len(public) != XWing.public:
            raise NotGenuine("a KEM key of another suite", "BAD_KEM_KEY")
        return KemKey(counter, public, reader.fixed(64), suite)


@dataclass
class KeyRecord:
    """A verified record: whoever holds one has checked every signature in it."""

    genesis: Genesis
    links: list[Link] = field(default_factory=list)
    #: Device id -> the KEM key to seal to, and the one before it if there is one.
    kem_keys: dict[bytes, tuple[KemKey, KemKey | None]] = field(default_factory=dict)
    #: Live devices and their Ed25519 keys.
    live: dict[bytes, bytes] = field(default_factory=dict)
    removed: set[bytes] = field(default_factory=set)
    #: The hash of each version, the genesis' own first.
    hashes: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        genesis = self.genesis
        if genesis.device_key == genesis.recovery_key:
            raise NotGenuine("the recovery key is a device key", "NOT_ALLOWED")
        signing.check_key(genesis.device_key)
        signing.check_key(genesis.recovery_key)
        self.hashes = [genesis.hash()]
        self.live = {device_id(genesis.device_key): genesis.device_key}

    @property
    def version(self) -> int:
        return len(self.links)

    @property
    def head(self) -> bytes:
        return self.hashes[-1]

    @staticmethod
    def decode(data: bytes) -> KeyRecord:
        """The record in these bytes; refuses one that is not canonical or not genuine."""
        if len(data) > MAX_RECORD_BYTES:
            raise Malformed("a key record too long")
        reader = Reader(data)
        if reader.u8() != FORMAT:
            raise Malformed("a key record of another format")
        record = KeyRecord(Genesis(reader.fixed(32), reader.fixed(32), reader.fixed(32)))
        for _ in range(reader.u16()):
            record.push(Link.read(reader))
        last = b""
        for _ in range(reader.u8()):
            device = reader.fixed(16)
            if device <= last:
                raise Malformed("devices out of order")
            last = device
            current, mark = KemKey.read(reader), reader.u8()
            if mark not in (0, 1):
                raise Malformed("neither a previous KEM key nor none")
            if mark == 1:
                record.put_kem(device, KemKey.read(reader))
            record.put_kem(device, current)
        reader.end()
        return record

    def encode(self) -> bytes:
        writer = self.genesis.write(Writer().u8(FORMAT)).u16(len(self.links))
        for link in self.links:
            link.write(writer)
        writer.u8(len(self.kem_keys))
        for device in sorted(self.kem_keys):
            current, previous = self.kem_keys[device]
            current.write(writer.fixed(device, 16)).u8(0 if previous is None else 1)
            if previous is not None:
                previous.write(writer)
        return writer.done()

    def push(self, link: Link) -> None:
        """One more link, if the chain allows it."""
        if self.version >= MAX_LINKS:
            raise NotGenuine("a chain too long", "NOT_ALLOWED")
        if link.version != self.version + 1 or link.previous != self.head:
            raise NotGenuine("a link that does not follow its chain", "BROKEN_CHAIN")
        if link.signer is None:
            key = self.genesis.recovery_key
        elif link.signer in self.live:
            key = self.live[link.signer]
        else:
            raise NotGenuine("a link whose signer is not live", "NOT_ALLOWED")
        signing.verify(key, link.signature, link.statement(), "a link")
        if link.change == ADD_DEVICE:
            self._add(link.subject)
        else:
            self._remove(link.subject)
        self.links.append(link)
        self.hashes.append(link.hash())

    def _add(self, key: bytes) -> None:
        device = device_id(key)
        if key == self.genesis.recovery_key:
            raise NotGenuine("the recovery key is a device key", "NOT_ALLOWED")
        if device in self.live or device in self.removed:
            raise NotGenuine("a device that is or was in the chain already", "NOT_ALLOWED")
        if len(self.live) >= MAX_DEVICES:
            raise NotGenuine("too many devices", "NOT_ALLOWED")
        signing.check_key(key)
        self.live[device] = key

    def _remove(self, device: bytes) -> None:
        if device not in self.live or len(self.live) == 1:
            raise NotGenuine("a device that can not be removed", "NOT_ALLOWED")
        del self.live[device]
        self.kem_keys.pop(device, None)
        self.removed.add(device)

    def put_kem(self, device: bytes, key: KemKey) -> None:
        """A newer KEM key of a live device."""
        if device not in self.live:
            raise NotGenuine("a KEM key of a device that is not live", "BAD_KEM_KEY")
        current = self.kem_keys.get(device, (None, None))[0]
        if current is not None and key.counter <= current.counter:
            raise NotGenuine("a KEM key that is not newer than the one before", "BAD_KEM_KEY")
        statement = KemKey.statement_of(device, key.suite, key.counter, key.public)
        signing.verify(self.live[device], key.signature, statement, "a KEM key")
        self.kem_keys[device] = (key, current)

    def signing_key_at(self, version: int, device: bytes) -> bytes | None:
        """The key of a device that was live at a version; it may have been removed since."""
        key = self.genesis.device_key
        found = key if device_id(key) == device else None
        for link in self.links[:version]:
            if link.change == ADD_DEVICE and device_id(link.subject) == device:
                found = link.subject
            elif link.change == REMOVE_DEVICE and link.subject == device:
                found = None
        return found

    def check_extends(self, pinned: KeyRecord) -> None:
        """Refuses what is not a later state of the record that was pinned."""
        if self.version < pinned.version or self.hashes[pinned.version] != pinned.head:
            raise NotGenuine("another chain than the one known", "IDENTITY_CHANGED")
        for device, (known, _) in pinned.kem_keys.items():
            if device not in self.live:
                continue
            if device not in self.kem_keys:
                raise NotGenuine("a live device without the KEM key it had", "IDENTITY_CHANGED")
            shown = self.kem_keys[device][0]
            if shown.counter < known.counter:
                raise NotGenuine("a KEM key older than the one known", "IDENTITY_CHANGED")
            if shown.counter == known.counter and shown.public != known.public:
                raise NotGenuine("two KEM keys under one counter", "IDENTITY_CHANGED")


def register_statement(
    genesis_hash: bytes, identifier: Identifier, discoverable: bool, kem_public: bytes
) -> bytes:
    """What a device signs to ask for a box."""
    writer = Writer("rossby register v1").fixed(genesis_hash, 32).u8(identifier.kind)
    writer.bytes(identifier.text.encode()).u8(int(discoverable))
    return writer.bytes(hashlib.sha256(kem_public).digest()).done()


def authorize_statement(box: bytes, device: bytes, identifier: Identifier, code: str) -> bytes:
    """What a device signs to prove its identifier with a code."""
    writer = Writer("rossby authorize v1").fixed(box, 16).fixed(device, 16)
    writer.u8(identifier.kind).bytes(identifier.text.encode())
    return writer.bytes(code.encode()).done()
