"""What an envelope says: content of every kind, and what names a message in it."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Malformed
from .identity import check_box_id
from .wire import Reader, Writer

TEXT, FILE, PICTURE, LOCATION, VOICE, REACTION, REPLY, EDIT, DELETE, RECEIPT, CONTROL = range(1, 12)
#: What a reply can not hold.
ABOUT_OTHERS = (REACTION, REPLY, EDIT, DELETE, RECEIPT, CONTROL)
RECEIPTS = {1: "delivered", 2: "read"}


def _head(kind: int) -> Writer:
    return Writer().u16(kind).u8(1)


@dataclass(frozen=True, order=True)
class MessageId:
    """Who wrote a message, on which device, and when: it names the message everywhere."""

    box: bytes
    device: bytes
    written_at_ms: int

    def write(self, writer: Writer) -> Writer:
        return writer.fixed(self.box, 16).fixed(self.device, 16).u64(self.written_at_ms)

    @staticmethod
    def read(reader: Reader) -> MessageId:
        return MessageId(check_box_id(reader.fixed(16)), reader.fixed(16), reader.u64())


@dataclass(frozen=True)
class Text:
    text: str

    def encode(self) -> bytes:
        return _head(TEXT).raw(self.text.encode()).done()


@dataclass(frozen=True)
class File:
    name: str
    media_type: str
    data: bytes

    def encode(self) -> bytes:
        writer = _head(FILE).bytes(self.name.encode()).bytes(self.media_type.encode())
        return writer.bytes(self.data).done()


@dataclass(frozen=True)
class Picture:
    media_type: str
    width: int
    height: int
    caption: str
    data: bytes

    def encode(self) -> bytes:
        writer = _head(PICTURE).bytes(self.media_type.encode()).u16(self.width).u16(self.height)
        return writer.bytes(self.caption.encode()).bytes(self.data).done()


@dataclass(frozen=True)
class Location:
    """A place in ten-millionths of a degree."""

    latitude: int
    longitude: int
    accuracy_m: int
    label: str

    def encode(self) -> bytes:
        writer = _head(LOCATION).u32(self.latitude % 2**32).u32(self.longitude % 2**32)
        return writer.u32(self.accuracy_m).bytes(self.label.encode()).done()


@dataclass(frozen=True)
class Voice:
    media_type: str
    duration_ms: int
    data: bytes

    def encode(self) -> bytes:
        writer = _head(VOICE).bytes(self.media_type.encode()).u32(self.duration_ms)
        return writer.bytes(self.data).done()


@dataclass(frozen=True)
class Reaction:
    to: MessageId
    emoji: str

    def encode(self) -> bytes:
        return self.to.write(_head(REACTION)).bytes(self.emoji.encode()).done()


@dataclass(frozen=True)
class Reply:
    to: MessageId
    content: Content

    def encode(self) -> bytes:
        return self.to.write(_head(REPLY)).bytes(self.content.encode()).done()


@dataclass(frozen=True)
class Edit:
    message: MessageId
    text: str

    def encode(self) -> bytes:
        return self.message.write(_head(EDIT)).bytes(self.text.encode()).done()


@dataclass(frozen=True)
class Delete:
    message: MessageId

    def encode(self) -> bytes:
        return self.message.write(_head(DELETE)).done()


@dataclass(frozen=True)
class Receipt:
    """How far messages have come: 1 delivered, 2 read."""

    state: int
    messages: tuple[MessageId, ...]

    def encode(self) -> bytes:
        writer = _head(RECEIPT).u8(self.state).u16(len(self.messages))
        for message in self.messages:
            message.write(writer)
        return writer.done()


@dataclass(frozen=True)
class Control:
    """Word between devices."""

    topic: int
    body: bytes

    def encode(self) -> bytes:
        return _head(CONTROL).u16(self.topic).bytes(self.body).done()


@dataclass(frozen=True)
class Unknown:
    """A kind that this client does not know: kept, and shown as such."""

    kind: int
    version: int
    rest: bytes

    def encode(self) -> bytes:
        return Writer().u16(self.kind).u8(self.version).raw(self.rest).done()


Content = (
    Text
    | File
    | Picture
    | Location
    | Voice
    | Reaction
    | Reply
    | Edit
    | Delete
    | Receipt
    | Control
    | Unknown
)


def decode_content(data: bytes) -> Content:
    try:
        return _decode_content(Reader(data))
    except (Malformed, UnicodeDecodeError) as error:
        raise Malformed(f"verified, and yet not content: {error}", "BAD_CONTENT") from error


def _decode_content(reader: Reader) -> Content:
    kind, version = reader.u16(), reader.u8()
    if version != 1 or kind not in _READERS:
        return Unknown(kind, version, reader.rest())
    content = _READERS[kind](reader)
    reader.end()
    return content


def _file(reader: Reader) -> File:
    name = _text(reader, 255)
    leads_out = name in ("", ".", "..") or "/" in name or "\\" in name
    _refuse(leads_out or _has_control(name), "a file name that is none")
    return File(name, _media_type(reader, ""), reader.bytes())


def _picture(reader: Reader) -> Picture:
    media_type, width, height = _media_type(reader, "image/"), reader.u16(), reader.u16()
    _refuse(0 in (width, height), "a picture without a size")
    return Picture(media_type, width, height, _text(reader, 4096), reader.bytes())


def _location(reader: Reader) -> Location:
    latitude, longitude = _signed(reader.u32()), _signed(reader.u32())
    far = abs(latitude) > 900_000_000 or abs(longitude) > 1_800_000_000
    _refuse(far, "not a place on the earth")
    accuracy, label = reader.u32(), _text(reader, 255)
    _refuse(_has_control(label), "a label with control characters")
    return Location(latitude, longitude, accuracy, label)


def _voice(reader: Reader) -> Voice:
    return Voice(_media_type(reader, "audio/"), reader.u32(), reader.bytes())


def _reaction(reader: Reader) -> Reaction:
    to, emoji = MessageId.read(reader), _text(reader, 64)
    spaced = any(character.isspace() for character in emoji)
    _refuse(spaced or _has_control(emoji), "a reaction that is none")
    return Reaction(to, emoji)


def _reply(reader: Reader) -> Reply:
    to, held = MessageId.read(reader), reader.bytes()
    kind, version = Reader(held).u16(), held[2:3]
    _refuse(version == b"\x01" and kind in ABOUT_OTHERS, "a reply that holds what it can not")
    return Reply(to, _decode_content(Reader(held)))


def _receipt(reader: Reader) -> Receipt:
    state, count = reader.u8(), reader.u16()
    _refuse(state not in RECEIPTS or not 1 <= count <= 256, "a receipt of another form")
    messages = tuple(MessageId.read(reader) for _ in range(count))
    rising = all(one < other for one, other in zip(messages, messages[1:]))
    _refuse(not rising, "a receipt out of order")
    return Receipt(state, messages)


_READERS = {
    TEXT: lambda reader: Text(reader.rest().decode()),
    FILE: _file,
    PICTURE: _picture,
    LOCATION: _location,
    VOICE: _voice,
    REACTION: _reaction,
    REPLY: _reply,
    EDIT: lambda reader: Edit(MessageId.read(reader), reader.bytes().decode()),
    DELETE: lambda reader: Delete(MessageId.read(reader)),
    RECEIPT: _receipt,
    CONTROL: lambda reader: Control(reader.u16(), reader.bytes()),
}


def _refuse(condition: bool, why: str) -> None:
    if condition:
        raise Malformed(why)


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number


def _has_control(text: str) -> bool:
    return any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text)


def _text(reader: Reader, limit: int) -> str:
    data = reader.bytes()
    _refuse(len(data) > limit, "a text too long")
    return data.decode()


def _media_type(reader: Reader, family: str) -> str:
    text = _text(reader, 127)
    printable = all(0x20 <= ord(c) < 0x7F for c in text)
    _refuse(not printable or not text.startswith(family), "a media type that is none")
    return text
