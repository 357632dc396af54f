"""Canonical bytes: the one way in which Rossby writes what is hashed, signed or stored."""

from __future__ import annotations

from .errors import Malformed


class Writer:
    """Collects canonical bytes; a label in front keeps one statement from passing for another."""

    def __init__(self, label: str | None = None) -> None:
        self._parts: list[bytes] = []
        if label is not None:
            self.bytes(label.encode("ascii"))

    def _number(self, value: int, length: int) -> Writer:
        self._parts.append(value.to_bytes(length, "big"))
        return self

    def u8(self, value: int) -> Writer:
        return self._number(value, 1)

    def u16(self, value: int) -> Writer:
        return self._number(value, 2)

    def u32(self, value: int) -> Writer:
        return self._number(value, 4)

    def u64(self, value: int) -> Writer:
        return self._number(value, 8)

    def fixed(self, data: bytes, length: int) -> Writer:
        """A byte string whose length every reader knows: it stands bare."""
        if len(data) != length:
            raise ValueError(f"{len(data)} bytes where {length} belong")
        self._parts.append(data)
        return self

    def bytes(self, data: bytes) -> Writer:
        """A byte string behind its length."""
        self.u32(len(data))
        self._parts.append(data)
        return self

    def raw(self, data: bytes) -> Writer:
        """Bytes that are canonical already."""
        self._parts.append(data)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Reads canonical bytes; it takes all of them or refuses."""

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    @property
    def taken(self) -> bytes:
        """Every byte read so far."""
        return self._data[: self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.fixed(len(self._data) - self._at)

    def fixed(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise Malformed(f"{length} bytes wanted at {self._at} of {len(self._data)}")
        part = self._data[self._at : end]
        self._at = end
        return part

    def bytes(self) -> bytes:
        return self.fixed(self.u32())

    def _number(self, length: int) -> int:
        return int.from_bytes(self.fixed(length), "big")

    def u8(self) -> int:
        return self._number(1)

    def u16(self) -> int:
        return self._number(2)

    def u32(self) -> int:
        return self._number(4)

    def u64(self) -> int:
        return self._number(8)

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed(f"{len(self._data) - self._at} bytes too many")
