"""A device: its keys, its contacts, and what it says to the service."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import envelope, hpke, proto, signing
from .connection import Connection, parse
from .errors import ConnectionFailed, Malformed, NotGenuine, RossbyError, ServiceError
from .hawk import Credentials
from .identity import (
    EMAIL,
    PHONE,
    Genesis,
    Identifier,
    KemKey,
    KeyRecord,
    SUITE_XWING,
    address,
    authorize_statement,
    device_id,
    is_box_of,
    register_statement,
)

TOKEN_INFO = b"rossby token v1"
#: A `next_counter` further ahead than this is a lie (docs/PROTOCOL.md, "Sending").
MAX_COUNTER_LEAP = 2**32


@dataclass(frozen=True)
class Received:
    """An envelope that came in: what it says, or why it was refused."""

    sequence: int
    sender_box: bytes
    sender_device: bytes
    counter: int
    opened: envelope.Opened | None
    refused: RossbyError | None


class Device:
    """One device, whose state is a JSON file of mode 0600 that holds its private keys in the clear."""

    def __init__(self, path: Path, connection: Connection, state: dict[str, Any]) -> None:
        self.path, self.connection, self._state = path, connection, state
        self.record = KeyRecord.decode(bytes.fromhex(state["record"]))
        self.id = device_id(self.record.genesis.device_key)

    @staticmethod
    def create(path: Path, connection: Connection) -> Device:
        """A new identity: a device key, a recovery key, and the first KEM key."""
        seed, recovery, kem = os.urandom(32), os.urandom(32), os.urandom(32)
        genesis = Genesis(signing.public_key(seed), signing.public_key(recovery), os.urandom(32))
        public = hpke.XWing().public_key(kem)
        device = device_id(genesis.device_key)
        statement = KemKey.statement_of(device, SUITE_XWING, 1, public)
        record = KeyRecord(genesis)
        record.put_kem(device, KemKey(1, public, signing.sign(seed, statement)))
        state = {
            "signing_seed": seed.hex(),
            "recovery_seed": recovery.hex(),
            "kem_seeds": {"1": kem.hex()},
            "record": record.encode().hex(),
            "contacts": {},
            "counters": {},
            "outgoing": {},
        }
        created = Device(path, connection, state)
        created._save()
        return created

    @staticmethod
    def load(path: Path, connection: Connection) -> Device:
        return Device(path, connection, json.loads(path.read_text()))

    @property
    def box(self) -> bytes:
        return bytes.fromhex(self._state["box"])

    @property
    def credentials(self) -> Credentials:
        token = bytes.fromhex(self._state["token"])
        return Credentials(address(self.box, self.id), token, self._state["hawk_host"])

    # --- registration ------------------------------------------------------------------------

    def register(self, identifier: Identifier, discoverable: bool = True) -> bytes:
        """Asks for a box; a code goes to the identifier. Again for another code."""
        kem = self.record.kem_keys[self.id][0]
        signed = register_statement(self.record.head, identifier, discoverable, kem.public)
        request = proto.messages().RegisterRequest(
            key_record=self.record.encode(),
            identifier=_to_wire(identifier),
            discoverable=discoverable,
            signature=self._sign(signed),
        )
        reply = self._call("Register", request, proto.messages().RegisterResponse, signed_in=False)
        if not is_box_of(reply.box_id, self.record.hashes[0]):
            raise NotGenuine("a box of another identity than this device's")
        self._state |= {"box": reply.box_id.hex(), "identifier": [identifier.kind, identifier.text]}
        self._save()
        return reply.box_id

    def authorize(self, code: str) -> None:
        """Proves the identifier with its code; from then on the device has a token."""
        identifier = Identifier(*self._state["identifier"])
        request = proto.messages().AuthorizeRequest(
            box_id=self.box,
            device_id=self.id,
            identifier=_to_wire(identifier),
            code=code,
            signature=self._sign(authorize_statement(self.box, self.id, identifier, code)),
        )
        reply = self._call("Authorize", request, proto.messages().AuthorizeResponse, signed_in=False)
        counter = self.record.kem_keys[self.id][0].counter
        token = hpke.open_sealed(
            self._kem_seeds()[counter],
            reply.encapsulated_key,
            TOKEN_INFO,
            address(self.box, self.id).encode(),
            reply.sealed_token,
        )
        self._state |= {"token": token.hex(), "hawk_host": reply.hawk_host}
        self._save()

    # --- contacts ----------------------------------------------------------------------------

    def look_up(self, who: Identifier | bytes) -> bytes:
        """Finds a box by its identifier or id, and pins its key record."""
        named = {"box_id": who} if isinstance(who, bytes) else {"identifier": _to_wire(who)}
        request = proto.messages().LookupKeyRequest(**named)
        reply = self._call("LookupKey", request, proto.messages().LookupKeyResponse)
        if isinstance(who, bytes) and who != reply.box_id:
            raise NotGenuine("another box than the one asked for")
        self.pin(reply.box_id, reply.key_record)
        self._raise_counter(reply.box_id, reply.next_counter)
        return reply.box_id

    def contact(self, box: bytes) -> KeyRecord:
        """The record of a box as it is pinned."""
        return KeyRecord.decode(bytes.fromhex(self._state["contacts"][box.hex()]))

    def pin(self, box: bytes, data: bytes) -> KeyRecord:
        """Takes a record for a box's, if it is genuine and goes on from the one pinned before."""
        record = KeyRecord.decode(data)
        if not is_box_of(box, record.hashes[0]):
            raise NotGenuine("a key record of another box")
        if box.hex() in self._state["contacts"]:
            record.check_extends(self.contact(box))
        self._state["contacts"][box.hex()] = data.hex()
        self._save()
        return record

    # --- sending -----------------------------------------------------------------------------

    def send(self, box: bytes, content: envelope.Content) -> int:
        """Sends to a box that was looked up; its place in that box. What is on its way goes first."""
        self.flush(box)
        counter = self._state["counters"].get(box.hex(), 1)
        self.stage(box, counter, content)
        return self.flush(box)

    def flush(self, box: bytes) -> int:
        """Sends what is on its way to a box, until the service has it; 0 if nothing is."""
        while (staged := self.outgoing(box)) is not None:
            outcome = self.offer(box, staged)
            if outcome.WhichOneof("result") == "sequence":
                self._state["counters"][box.hex()] = staged["counter"] + 1
                del self._state["outgoing"][box.hex()]
                self._save()
                return outcome.sequence
            self._after_refusal(box, staged, outcome.refusal)
        return 0

    def outgoing(self, box: bytes) -> dict[str, Any] | None:
        """What is on its way to a box."""
        return self._state["outgoing"].get(box.hex())

    def offer(self, box: bytes, staged: dict[str, Any]) -> Any:
        """One Send of one sealed envelope: its outcome."""
        letter = proto.messages().OutgoingEnvelope(
            recipient_box_id=box,
            counter=staged["counter"],
            chain_version=staged["chain_version"],
            body=bytes.fromhex(staged["body"]),
        )
        request = proto.messages().SendRequest(envelopes=[letter])
        reply = self._call("Send", request, proto.messages().SendResponse)
        if len(reply.outcomes) != 1:
            raise Malformed("not one outcome for one envelope")
        outcome = reply.outcomes[0]
        if (outcome.recipient_box_id, outcome.counter) != (box, staged["counter"]):
            raise NotGenuine("an outcome of another envelope")
        return outcome

    def _after_refusal(self, box: bytes, staged: dict[str, Any], refusal: Any) -> None:
        content = envelope.decode_content(bytes.fromhex(staged["content"]))
        if refusal.code == "STALE_KEY_RECORD":
            if refusal.HasField("key_record"):
                self.pin(box, refusal.key_record)
            else:
                self.look_up(box)
            if self._state["contacts"][box.hex()] == staged["record"]:
                raise NotGenuine("called stale, and it is what was sealed for")
            self.stage(box, staged["counter"], content, staged["written_at_ms"])
        elif refusal.code in ("COUNTER_REUSED", "NOT_ACCEPTED"):
            # Not stored under this counter, and never will be.
            self._raise_counter(box, max(refusal.next_counter, staged["counter"] + 1))
            counter = self._state["counters"][box.hex()]
            self.stage(box, counter, content, staged["written_at_ms"])
        else:
            retry = {1: "no", 2: "same", 3: "changed"}.get(refusal.retry, "no")
            if retry != "same":
                # Its owner is told; what comes after it may go.
                del self._state["outgoing"][box.hex()]
                self._save()
            after = refusal.retry_after_ms / 1000 if refusal.HasField("retry_after_ms") else None
            raise ServiceError(refusal.code, refusal.message, retry, after)

    def stage(
        self, box: bytes, counter: int, content: envelope.Content, written_at_ms: int = 0
    ) -> None:
        """Seals, and stores the counter and the sealed body before anything is sent.

        The instant names the message: another try keeps it, and no other message has it.
        """
        recipient = self.contact(box)
        if not written_at_ms:
            written_at_ms = max(int(time.time() * 1000), self._state.get("written_at_ms", 0) + 1)
            self._state["written_at_ms"] = written_at_ms
        statement = envelope.Statement(
            sender_box=self.box,
            sender_device=self.id,
            recipient_box=box,
            counter=counter,
            conversation=envelope.direct_conversation(self.box, box),
            written_at_ms=written_at_ms,
            sender_chain=envelope.ChainPoint.head_of(self.record),
            recipient_chain=envelope.ChainPoint.head_of(recipient),
        )
        seed = bytes.fromhex(self._state["signing_seed"])
        self._state["counters"][box.hex()] = counter
        self._state["outgoing"][box.hex()] = {
            "counter": counter,
            "chain_version": recipient.version,
            "record": self._state["contacts"][box.hex()],
            "body": envelope.seal(seed, recipient, statement, content).hex(),
            "content": content.encode().hex(),
            "written_at_ms": written_at_ms,
        }
        self._save()

    def _raise_counter(self, box: bytes, next_counter: int) -> None:
        counter = self._state["counters"].get(box.hex(), 1)
        if next_counter > counter + MAX_COUNTER_LEAP:
            raise NotGenuine("a counter absurdly far ahead")
        self._state["counters"][box.hex()] = max(counter, next_counter)
        self._save()

    # --- receiving ---------------------------------------------------------------------------

    def fetch(self) -> list[Received]:
        """The next envelopes, opened and verified. Moves nothing: acknowledge what is stored."""
        request = proto.messages().FetchRequest()
        page = self._call("Fetch", request, proto.messages().FetchResponse)
        return [self._receive(letter) for letter in page.envelopes]

    def listen(self) -> Iterator[Received]:
        """Envelopes as they come, for ever. Moves nothing: acknowledge what is stored."""
        after, pause = 0, 0.1
        while True:
            request = proto.messages().SubscribeRequest(after=after).SerializeToString()
            try:
                for data in self.connection.stream(request, self.credentials):
                    pause = 0.1
                    page = parse(proto.messages().FetchResponse, data)
                    for letter in page.envelopes:
                        after = max(after, letter.sequence)
                        yield self._receive(letter)
                continue  # Its ten minutes are over.
            except ServiceError as error:
                if error.server_time_ms is None and error.retry != "same":
                    raise
                pause = max(pause, error.retry_after or 0.0)
            except ConnectionFailed:
                pass
            self.connection.next_server()
            time.sleep(pause)
            pause = min(pause * 2, 10.0)

    def _receive(self, letter: Any) -> Received:
        sender, device = letter.sender_box_id, letter.sender_device_id
        opened = refused = None
        try:
            opened = self.open(sender, device, letter.counter, letter.body)
        except RossbyError as error:
            refused = error
        return Received(letter.sequence, sender, device, letter.counter, opened, refused)

    def open(self, sender: bytes, device: bytes, counter: int, body: bytes) -> envelope.Opened:
        """Opens an envelope; a sender that is not known yet is looked up."""
        if sender.hex() not in self._state["contacts"]:
            self.look_up(sender)
        arrival = envelope.Arrival(sender, device, counter, body)
        try:
            return envelope.open_envelope(self._reading(sender), arrival)
        except NotGenuine as error:
            if error.code != "SENDER_RECORD_TOO_OLD":
                raise
        # The sender's chain has grown since it was looked up.
        self.look_up(sender)
        return envelope.open_envelope(self._reading(sender), arrival)

    def _reading(self, sender: bytes) -> envelope.Reading:
        own = (self.box, self.id, self._kem_seeds(), self.record)
        return envelope.Reading(*own, self.contact(sender))

    def acknowledge(self, upto: int) -> int:
        """Moves the cursor: everything up to there is stored here. The cursor now."""
        request = proto.messages().AcknowledgeRequest(upto=upto)
        return self._call("Acknowledge", request, proto.messages().AcknowledgeResponse).cursor

    # --- underneath --------------------------------------------------------------------------

    def _call(self, method: str, request: Any, reply: Any, signed_in: bool = True) -> Any:
        credentials = self.credentials if signed_in else None
        return self.connection.call(method, request, reply, credentials)

    def _sign(self, statement: bytes) -> bytes:
        return signing.sign(bytes.fromhex(self._state["signing_seed"]), statement)

    def _kem_seeds(self) -> dict[int, bytes]:
        seeds = self._state["kem_seeds"]
        return {int(counter): bytes.fromhex(seed) for counter, seed in seeds.items()}

    def _save(self) -> None:
        """Replaces the file at once, or not at all."""
        new = self.path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)


def _to_wire(identifier: Identifier) -> Any:
    field = {PHONE: "phone", EMAIL: "email"}[identifier.kind]
    return proto.messages().Identifier(**{field: identifier.text})
