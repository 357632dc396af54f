"""Hawk over gRPC, with the independent library mohawk."""

from __future__ import annotations

import base64
import logging
import os
import time
from dataclasses import dataclass, field

import mohawk
import mohawk.exc
import mohawk.util

from .errors import Unauthentic

# It warns with each reply that nonces are not remembered: that is the service's part.
logging.getLogger("mohawk").setLevel(logging.ERROR)

METHOD = "POST"
PORT = 443
CONTENT_TYPE = "application/grpc"
#: A new leader may want a time so far ahead; that is no fault of this device's clock.
LEADER_AHEAD_MS = 15_000


@dataclass(frozen=True)
class Credentials:
    """Who signs: a device address, its token, and the cluster's name."""

    id: str
    key: bytes = field(repr=False)
    host: str


class Signed:
    """A signed request, against which its reply is held."""

    def __init__(
        self,
        credentials: Credentials,
        path: str,
        message: bytes,
        ts: int,
        nonce: str | None = None,
    ) -> None:
        nonce = nonce or base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
        self._ts = ts
        self._sender = mohawk.Sender(
            {"id": credentials.id, "key": credentials.key, "algorithm": "sha256"},
            f"https://{credentials.host}:{PORT}{path}",
            METHOD,
            content=message,
            content_type=CONTENT_TYPE,
            nonce=nonce,
            _timestamp=ts,
        )

    @property
    def authorization(self) -> str:
        return self._sender.request_header

    def check_reply(self, header: str | None, reply: bytes, ext: str | None = None) -> None:
        """Refuses a reply that the service did not make to this very request.

        In a stream, `ext` is the number of the message that is due.
        """
        if header is None:
            raise Unauthentic("a reply without server-authorization")
        try:
            if mohawk.util.parse_authorization_header(header).get("ext") != ext:
                raise Unauthentic("another message than the one that is due")
            self._sender.accept_response(
                header,
                content=reply,
                content_type=CONTENT_TYPE,
                # The MAC binds the reply to the request's own time: mohawk's clock has no say here.
                localtime_offset_in_seconds=self._ts - time.time(),
            )
        except (mohawk.exc.HawkFail, ValueError) as error:
            raise Unauthentic(f"a reply that is not the service's: {type(error).__name__}") from error


class Clock:
    """This device's clock, corrected by what the service says of it."""

    def __init__(self) -> None:
        self._offset_ms = 0
        self._floor_ms = 0

    def now_s(self) -> int:
        return max(int(time.time() * 1000) + self._offset_ms, self._floor_ms) // 1000

    def learn(self, signed_s: int, server_time_ms: int) -> None:
        difference = server_time_ms - signed_s * 1000
        if not 0 <= difference <= LEADER_AHEAD_MS:
            self._offset_ms += difference
        self._floor_ms = server_time_ms
