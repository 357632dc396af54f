"""Our HPKE and X-Wing against published vectors, and against the library's own HPKE."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rossby_client import hpke
from rossby_client.errors import NotGenuine

VECTORS = Path(__file__).resolve().parents[3] / "client/tests/vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    found = json.loads((VECTORS / name).read_text())["vectors"]
    assert found
    return found


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


class Published(unittest.TestCase):
    def test_x_wing_decapsulates_the_vectors_of_its_draft(self) -> None:
        for vector in vectors("xwing.json"):
            seed = unhex(vector["seed"])
            self.assertEqual(hpke.XWing().public_key(seed).hex(), vector["pk"])
            self.assertEqual(hpke.XWing().decapsulate(unhex(vector["ct"]), seed).hex(), vector["ss"])

    def test_hpke_opens_the_vectors_of_rfc_9180(self) -> None:
        for vector in vectors("rfc9180_a2.json"):
            self.opens(vector, hpke.DhKem())

    def test_hpke_with_x_wing_opens_the_vectors_of_its_draft(self) -> None:
        for vector in vectors("hpke_xwing.json"):
            self.opens(vector, hpke.XWing())

    def opens(self, vector: dict[str, Any], kem: hpke.Kem) -> None:
        private, encapsulated, info = (unhex(vector[name]) for name in ("skRm", "enc", "info"))
        # A single message is the first one of a context.
        first = vector["encryptions"][0]
        aad, sealed = unhex(first["aad"]), unhex(first["ct"])
        text = hpke.open_sealed(private, encapsulated, info, aad, sealed, kem)
        self.assertEqual(text.hex(), first["pt"])

    def test_what_is_sealed_opens_with_the_same_words_only(self) -> None:
        for kem in (hpke.XWing(), hpke.DhKem()):
            seed, other = os.urandom(32), os.urandom(32)
            public = self.public(kem, seed)
            encapsulated, sealed = hpke.seal(public, b"info", b"aad", b"text", kem)
            opened = hpke.open_sealed(seed, encapsulated, b"info", b"aad", sealed, kem)
            self.assertEqual(opened, b"text")
            for bad in ((other, b"info", b"aad"), (seed, b"else", b"aad"), (seed, b"info", b"else")):
                with self.assertRaises(NotGenuine):
                    hpke.open_sealed(bad[0], encapsulated, bad[1], bad[2], sealed, kem)

    def public(self, kem: hpke.Kem, seed: bytes) -> bytes:
        if isinstance(kem, hpke.XWing):
            return kem.public_key(seed)
        return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    def test_the_library_opens_what_we_seal_and_we_what_it_seals(self) -> None:
        suite = library.Suite(
            library.KEM.MLKEM768_X25519, library.KDF.HKDF_SHA256, library.AEAD.CHACHA20_POLY1305
        )
        seed = os.urandom(32)
        halves = hpke.XWing()._expand(seed)
        self.assertIsInstance(halves[0], MLKEM768PrivateKey)
        private = library.MLKEM768X25519PrivateKey(*halves)
        encapsulated, sealed = hpke.seal(hpke.XWing().public_key(seed), b"info", b"", b"text")
        self.assertEqual(suite.decrypt(encapsulated + sealed, private, b"info"), b"text")
        theirs = suite.encrypt(b"text", private.public_key(), b"info")
        split = hpke.XWing.encapsulated
        self.assertEqual(hpke.open_sealed(seed, theirs[:split], b"info", b"", theirs[split:]), b"text")


if __name__ == "__main__":
    unittest.main()
