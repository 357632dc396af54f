"""The safety number: sixty digits that two people compare by other means."""

from __future__ import annotations

import hashlib

ROUNDS = 5200


def digits(key: bytes, identifier: bytes) -> list[str]:
    """One side's six groups of five digits (Signal's numeric fingerprint, version 0)."""
    digest = b"\x00\x00" + key + identifier
    for _ in range(ROUNDS):
        digest = hashlib.sha512(digest + key).digest()
    chunks = [digest[at : at + 5] for at in range(0, 30, 5)]
    return [f"{int.from_bytes(chunk, 'big') % 100_000:05}" for chunk in chunks]


def safety_number(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> str:
    """The number of two boxes, each a box id and the hash of its genesis."""
    sides = sorted(digits(genesis, box) for box, genesis in (one, other))
    return " ".join(sides[0] + sides[1])
