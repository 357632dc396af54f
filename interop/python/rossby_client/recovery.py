"""The recovery key on paper: its seed as 24 words (BIP-39, English)."""

from __future__ import annotations

from mnemonic import Mnemonic

from .errors import Malformed

_WORDS = Mnemonic("english")


def to_words(seed: bytes) -> str:
    """The words of a seed of 32 bytes."""
    if len(seed) != 32:
        raise Malformed("a recovery seed has 32 bytes")
    return _WORDS.to_mnemonic(seed)


def from_words(text: str) -> bytes:
    """The seed, or Malformed: a word that is none, another number of words, or a checksum that does not fit."""
    words = " ".join(text.lower().split())
    if len(words.split()) != 24 or not _WORDS.check(words):
        raise Malformed("these are not the 24 words of a recovery key")
    return bytes(_WORDS.to_entropy(words))
