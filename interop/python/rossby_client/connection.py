"""Calls to the service: signed, retried where that helps, and checked in return."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from . import hawk, proto
from .errors import ConnectionFailed, Malformed, ServiceError

SERVICE = "/rossby.v1.Mailbox/"
DETAILS = "grpc-status-details-bin"
#: No call of the service takes longer than three seconds; the rest is for the way there.
ATTEMPT_S = 5.0
#: A stream brings a sign of life every ten seconds.
SILENCE_S = 30.0


@dataclass
class Connection:
    """One or more servers of a cluster, given as `host:port`; with `ca` (PEM) spoken to over TLS."""

    servers: list[str]
    ca: bytes | None = None
    #: How long a call is tried again before it is given up, in seconds.
    patience: float = 30.0
    clock: hawk.Clock = field(default_factory=hawk.Clock)
    _channels: dict[str, grpc.Channel] = field(default_factory=dict, repr=False)
    _favourite: int = 0

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def call(
        self, method: str, request: Message, reply: type[Message], credentials: hawk.Credentials | None
    ) -> Message:
        """Makes a call, again and again where the service says that the same may pass.

        Raises `ServiceError`, `ConnectionFailed` (it may have happened), or `Unauthentic`.
        """
        message = request.SerializeToString()
        deadline = time.monotonic() + self.patience
        pause = 0.1
        while True:
            wait = pause * random.uniform(0.5, 1.0)
            try:
                return parse(reply, self.attempt(SERVICE + method, message, credentials))
            except ServiceError as error:
                # A request signed for another time was not done, and another signature may pass.
                if error.server_time_ms is None and error.retry != "same":
                    raise
                wait = max(wait, error.retry_after or 0.0)
                if time.monotonic() + wait > deadline:
                    raise
            except ConnectionFailed:
                if time.monotonic() + wait > deadline:
                    raise
            self.next_server()
            time.sleep(wait)
            pause = min(pause * 2, 2.0)

    def next_server(self) -> None:
        """Another server is asked from now on."""
        self._favourite += 1

    def attempt(self, path: str, message: bytes, credentials: hawk.Credentials | None) -> bytes:
        """One try of one call; the reply's message, vouched for by the service."""
        if credentials is None:
            return self.exchange(path, message, None)[0]
        ts = self.clock.now_s()
        signed = hawk.Signed(credentials, path, message, ts)
        try:
            reply, vouched = self.exchange(path, message, signed.authorization)
        except ServiceError as error:
            if error.server_time_ms is not None:
                self.clock.learn(ts, error.server_time_ms)
            raise
        signed.check_reply(vouched, reply)
        return reply

    def exchange(self, path: str, message: bytes, authorization: str | None) -> tuple[bytes, str | None]:
        """One gRPC call of raw messages: the reply, and its `server-authorization` if there is one."""
        method = self._channel().unary_unary(path)
        metadata = [] if authorization is None else [("authorization", authorization)]
        try:
            reply, call = method.with_call(message, timeout=ATTEMPT_S, metadata=metadata)
        except grpc.RpcError as error:
            raise _error_of(error) from error
        vouched = dict(call.initial_metadata()).get("server-authorization")
        return reply, vouched

    def stream(self, message: bytes, credentials: hawk.Credentials) -> Iterator[bytes]:
        """One subscription: its pages, each vouched for, until the service ends it."""
        path, ts = SERVICE + "Subscribe", self.clock.now_s()
        signed = hawk.Signed(credentials, path, message, ts)
        metadata = [("authorization", signed.authorization)]
        call = self._channel().unary_stream(path)(message, metadata=metadata)
        response = proto.messages().SubscribeResponse
        try:
            for number, raw in enumerate(_lively(call)):
                said = parse(response, raw)
                signed.check_reply(said.server_authorization, said.page, ext=str(number))
                yield said.page
        except grpc.RpcError as error:
            failure = _error_of(error)
            if isinstance(failure, ServiceError) and failure.server_time_ms is not None:
                self.clock.learn(ts, failure.server_time_ms)
            raise failure from error
        finally:
            call.cancel()

    def _channel(self) -> grpc.Channel:
        server = self.servers[self._favourite % len(self.servers)]
        if server not in self._channels:
            self._channels[server] = self._open(server)
        return self._channels[server]

    def _open(self, server: str) -> grpc.Channel:
        # Room for the largest page of Fetch.
        options = [("grpc.max_receive_message_length", 8 * 1024 * 1024), ("grpc.enable_http_proxy", 0)]
        if self.ca is None:
            return grpc.insecure_channel(server, options)
        return grpc.secure_channel(server, grpc.ssl_channel_credentials(self.ca), options)


def _lively(call: Any) -> Iterator[bytes]:
    """The messages of a stream, which is given up once it says nothing for too long."""
    while True:
        watchdog = threading.Timer(SILENCE_S, call.cancel)
        watchdog.daemon = True
        watchdog.start()
        try:
            message = next(call, None)
        finally:
            watchdog.cancel()
        if message is None:
            return
        yield message


def parse(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise Malformed(f"not a {kind.__name__}") from error


def _error_of(error: grpc.RpcError) -> ServiceError | ConnectionFailed:
    """The service's own refusal, if the status carries one; else a failure of the connection."""
    details = dict(error.trailing_metadata() or ()).get(DETAILS)
    if details is not None:
        status = parse(status_pb2.Status, details)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        found = wait = False
        for detail in status.details:
            found = detail.Unpack(info) or found
            wait = detail.Unpack(retry) or wait
        if found and info.domain == "rossby":
            server_time = info.metadata.get("server_time_ms")
            return ServiceError(
                code=info.reason,
                message=error.details() or "",
                retry=info.metadata.get("retry", "no"),
                retry_after=retry.retry_delay.ToTimedelta().total_seconds() if wait else None,
                server_time_ms=int(server_time) if server_time else None,
                figures=dict(info.metadata),
            )
    return ConnectionFailed(error.code().name, error.details() or "")
