"""What can go wrong, each thing with a type of its own."""

from __future__ import annotations

from dataclasses import dataclass, field


class RossbyError(Exception):
    """Anything that this client refuses or reports."""


class Refused(RossbyError):
    """Bytes that this client does not take. The code is a word of the test vectors."""

    code = ""

    def __init__(self, why: str, code: str = "") -> None:
        super().__init__(why)
        self.code = code or self.code


class Malformed(Refused):
    """Bytes that are not in their canonical form."""

    code = "MALFORMED"


class NotGenuine(Refused):
    """Bytes in good form that a key, a signature or a hash does not vouch for."""

    code = "NOT_GENUINE"


class Unauthentic(RossbyError):
    """A reply that the service did not authenticate: nothing in it may be believed."""


@dataclass
class ServiceError(RossbyError):
    """A refusal by the service: a stable code, and whether trying again helps."""

    code: str
    message: str
    #: "no", "same" or "changed".
    retry: str
    #: How long to wait before a retry, where the service says so, in seconds.
    retry_after: float | None = None
    #: The service's clock, with a request that was signed for another time.
    server_time_ms: int | None = None
    #: All that came with it, for example `attempts_left`.
    figures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message} (retry: {self.retry})"


@dataclass
class ConnectionFailed(RossbyError):
    """An error of the connection and not of the service: what was asked may have happened."""

    status: str
    message: str

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"
