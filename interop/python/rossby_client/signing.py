"""Ed25519, verified strictly: no small-order points and no second form of anything."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from .errors import NotGenuine

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
#: The y of the points whose order divides 8: (order 1, 2, 4, 8 and 8).
_Y8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
SMALL_ORDER = {1, P - 1, 0, _Y8, P - _Y8}


def is_small_order(point: bytes) -> bool:
    """Whether an encoded point has a small order, in whichever encoding."""
    y = int.from_bytes(point, "little") & (2**255 - 1)
    return y % P in SMALL_ORDER


def public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, statement: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(statement)


def verify(key: bytes, signature: bytes, statement: bytes, what: str) -> None:
    """Refuses a signature that the key did not make over the statement."""
    if is_small_order(key) or is_small_order(signature[:32]):
        raise NotGenuine(f"{what}: a point of small order", "BAD_SIGNATURE")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, statement)
    except (InvalidSignature, ValueError) as error:
        raise NotGenuine(f"{what}: not signed by this key", "BAD_SIGNATURE") from error


def is_point(key: bytes) -> bool:
    """Whether some x on the curve goes with the y in these bytes (RFC 8032, section 5.1.3)."""
    y2 = pow(int.from_bytes(key, "little") & (2**255 - 1), 2, P)
    x2 = (y2 - 1) * pow(D * y2 + 1, -1, P) % P
    return x2 == 0 or pow(x2, (P - 1) // 2, P) == 1


def check_key(key: bytes) -> None:
    """Refuses a key that is no point, or one of small order."""
    if is_small_order(key) or not is_point(key):
        raise NotGenuine("not a usable public key", "BAD_KEY")
