"""HPKE (RFC 9180), base mode, one message per key: X-Wing, HKDF-SHA256, ChaCha20-Poly1305.

X-Wing is draft-connolly-cfrg-xwing-kem: ML-KEM-768 and X25519 side by side.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .errors import Malformed, NotGenuine

ML_KEM_PUBLIC, ML_KEM_CIPHERTEXT, X25519 = 1184, 1088, 32
XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")  # \.//^\


class Kem(Protocol):
    """A key encapsulation mechanism, as RFC 9180 (section 4) names its parts."""

    id: int
    encapsulated: int

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]: ...

    def decapsulate(self, encapsulated: bytes, private: bytes) -> bytes: ...


class XWing:
    """X-Wing. A private key is its 32-byte seed."""

    id = 0x647A
    private = 32
    public = ML_KEM_PUBLIC + X25519
    encapsulated = ML_KEM_CIPHERTEXT + X25519

    @staticmethod
    def _expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        if len(seed) != XWing.private:
            raise Malformed(f"an X-Wing seed of {len(seed)} bytes")
        expanded = hashlib.shake_256(seed).digest(96)
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]),
        )

    @staticmethod
    def _combine(ml_kem: bytes, dh: bytes, ephemeral: bytes, public: bytes) -> bytes:
        return hashlib.sha3_256(ml_kem + dh + ephemeral + public + XWING_LABEL).digest()

    def public_key(self, seed: bytes) -> bytes:
        ml_kem, dh = self._expand(seed)
        return ml_kem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """The shared secret, and what carries it to the owner of the public key."""
        if len(public) != self.public:
            raise Malformed(f"an X-Wing public key of {len(public)} bytes")
        try:
            ml_kem = MLKEM768PublicKey.from_public_bytes(public[:ML_KEM_PUBLIC])
        except ValueError as error:
            raise Malformed("an ML-KEM public key that is none") from error
        theirs = public[ML_KEM_PUBLIC:]
        secret, ciphertext = ml_kem.encapsulate()
        mine = X25519PrivateKey.from_private_bytes(os.urandom(X25519))
        ephemeral = mine.public_key().public_bytes_raw()
        shared = self._combine(secret, _agree(mine, theirs), ephemeral, theirs)
        return shared, ciphertext + ephemeral

    def decapsulate(self, encapsulated: bytes, private: bytes) -> bytes:
        if len(encapsulated) != self.encapsulated:
            raise Malformed(f"{len(encapsulated)} encapsulated bytes")
        ml_kem, dh = self._expand(private)
        ciphertext, ephemeral = (
            encapsulated[:ML_KEM_CIPHERTEXT],
            encapsulated[ML_KEM_CIPHERTEXT:],
        )
        secret = ml_kem.decapsulate(ciphertext)
        public = dh.public_key().public_bytes_raw()
        return self._combine(secret, _agree(dh, ephemeral), ephemeral, public)


def _agree(mine: X25519PrivateKey, theirs: bytes) -> bytes:
    try:
        return mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError as error:
        raise NotGenuine("an X25519 public key that agrees on nothing") from error


class DhKem:
    """DHKEM(X25519, HKDF-SHA256): not used by Rossby, but RFC 9180's own vectors are for it."""

    id = 0x0020
    encapsulated = 32

    def _extract(self, dh: bytes, encapsulated: bytes, public: bytes) -> bytes:
        suite = b"KEM" + self.id.to_bytes(2, "big")
        prk = labeled_extract(suite, b"", b"eae_prk", dh)
        return labeled_expand(suite, prk, b"shared_secret", encapsulated + public, 32)

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        mine = X25519PrivateKey.generate()
        encapsulated = mine.public_key().public_bytes_raw()
        return self._extract(_agree(mine, public), encapsulated, public), encapsulated

    def decapsulate(self, encapsulated: bytes, private: bytes) -> bytes:
        mine = X25519PrivateKey.from_private_bytes(private)
        public = mine.public_key().public_bytes_raw()
        return self._extract(_agree(mine, encapsulated), encapsulated, public)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """RFC 9180, section 4: HKDF-Extract with everything named."""
    labeled = b"HPKE-v1" + suite + label + ikm
    return hmac.digest(salt or bytes(32), labeled, "sha256")


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180, section 4: HKDF-Expand with everything named; at most one block here."""
    if length > 32:
        raise ValueError("more than one block of HKDF-SHA256")
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\x01", "sha256")[:length]


def _key_schedule(kem: Kem, shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The key and the first nonce of mode base (RFC 9180, section 5.1)."""
    suite = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (kem.id, 0x0001, 0x0003))
    psk_id_hash = labeled_extract(suite, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(suite, b"", b"info_hash", info)
    context = b"\x00" + psk_id_hash + info_hash
    secret = labeled_extract(suite, shared, b"secret", b"")
    key = labeled_expand(suite, secret, b"key", context, 32)
    nonce = labeled_expand(suite, secret, b"base_nonce", context, 12)
    return key, nonce


def seal(public: bytes, info: bytes, aad: bytes, text: bytes, kem: Kem = XWing()) -> tuple[bytes, bytes]:
    """The encapsulated key, and the ciphertext."""
    shared, encapsulated = kem.encapsulate(public)
    key, nonce = _key_schedule(kem, shared, info)
    return encapsulated, ChaCha20Poly1305(key).encrypt(nonce, text, aad)


def open_sealed(
    private: bytes, encapsulated: bytes, info: bytes, aad: bytes, sealed: bytes, kem: Kem = XWing()
) -> bytes:
    """What was sealed; refuses what was not sealed for this key, under this info and AAD."""
    shared = kem.decapsulate(encapsulated, private)
    key, nonce = _key_schedule(kem, shared, info)
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)
    except InvalidTag as error:
        raise NotGenuine("it was not sealed for this key") from error
