"""Rossby's own vectors (docs/vectors/v1.json), step by step."""

from __future__ import annotations

import hashlib
import json
import unittest
from pathlib import Path
from typing import Any

from rossby_client import content, envelope, hawk, hpke, identity, profile, recovery, signing
from rossby_client.device import TOKEN_INFO
from rossby_client.errors import Malformed, NotGenuine, Refused, Unauthentic
from rossby_client.identity import Identifier, KeyRecord
from rossby_client.safety_number import safety_number
from rossby_client.wire import Reader, Writer

ROOT = Path(__file__).resolve().parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "docs/vectors/v1.json").read_text())
PEOPLE = VECTORS["people"]


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def latest(name: str) -> KeyRecord:
    """The record of a person as it is at last."""
    of_them = [vector for vector in VECTORS["key_records"] if vector["of"] == name]
    return KeyRecord.decode(unhex(of_them[-1]["bytes"]))


def normalised(kind: int, text: str) -> Identifier:
    identifier = Identifier.phone(text) if kind == identity.PHONE else Identifier.email(text)
    assert identifier.text == text
    return identifier


class Vectors(unittest.TestCase):
    def each(self, section: str):
        vectors = VECTORS[section]
        self.assertTrue(vectors)
        for number, vector in enumerate(vectors):
            with self.subTest(section, number=number, what=vector.get("what")):
                yield vector

    def test_every_section_is_known_here(self) -> None:
        known = {name.removeprefix("test_the_") for name in dir(self) if name.startswith("test_the_")}
        self.assertEqual(known, set(VECTORS) - {"about"})

    def test_the_wire(self) -> None:
        for vector in self.each("wire"):
            writer, reader = Writer(), Reader(unhex(vector["bytes"]))
            for kind, value in vector["values"]:
                if kind == "label":
                    writer.bytes(value.encode())
                    self.assertEqual(reader.bytes(), value.encode())
                elif kind == "fixed":
                    writer.fixed(unhex(value), len(value) // 2)
                    self.assertEqual(reader.fixed(len(value) // 2), unhex(value))
                else:
                    value = unhex(value) if kind == "bytes" else value
                    getattr(writer, kind)(value)
                    self.assertEqual(getattr(reader, kind)(), value)
            reader.end()
            self.assertEqual(writer.done().hex(), vector["bytes"])

    def test_the_identifiers(self) -> None:
        for vector in self.each("identifiers"):
            make = Identifier.phone if vector["kind"] == "phone" else Identifier.email
            if vector["normalised"] is None:
                with self.assertRaises(Malformed):
                    make(vector["typed"])
            else:
                self.assertEqual(make(vector["typed"]).text, vector["normalised"])

    def test_the_signatures(self) -> None:
        for vector in self.each("signatures"):
            args = [unhex(vector[name]) for name in ("key", "signature", "message")]
            if vector["good"]:
                signing.verify(*args, "a message")
            else:
                with self.assertRaises(NotGenuine):
                    signing.verify(*args, "a message")

    def test_the_people(self) -> None:
        for name, person in PEOPLE.items():
            with self.subTest(name):
                for device in person["devices"]:
                    key = signing.public_key(unhex(device["signing_seed"]))
                    self.assertEqual(key.hex(), device["signing_key"])
                    self.assertEqual(identity.device_id(key).hex(), device["device_id"])
                    for kem in device["kem_keys"]:
                        public = hpke.XWing().public_key(unhex(kem["seed"]))
                        self.assertEqual(public.hex(), kem["public"])
                recovery = signing.public_key(unhex(person["recovery_seed"]))
                self.assertEqual(recovery.hex(), person["recovery_key"])
                first = unhex(person["devices"][0]["signing_key"])
                genesis = identity.Genesis(first, recovery, unhex(person["nonce"]))
                self.assertEqual(genesis.hash().hex(), person["genesis_hash"])
                box = identity.box_id(person["birth_partition"], genesis.hash())
                self.assertEqual(box.hex(), person["box_id"])
                self.assertTrue(identity.is_box_of(box, genesis.hash()))
                self.assertFalse(identity.is_box_of(box, hashlib.sha256(b"other").digest()))
                address = identity.address(box, identity.device_id(first))
                self.assertEqual(address, person["address"])

    def test_the_recovery_keys(self) -> None:
        for vector in self.each("recovery_keys"):
            seed, words = unhex(vector["seed"]), vector["words"]
            self.assertEqual(recovery.to_words(seed), words)
            self.assertEqual(recovery.from_words(f"  {words.upper()}\n"), seed)
            first, *others = words.split()
            for wrong in ["", " ".join(others), " ".join(["rossby", *others]), f"{words} {first}"]:
                with self.assertRaises(Malformed):
                    recovery.from_words(wrong)

    def test_the_key_records(self) -> None:
        for vector in self.each("key_records"):
            record = KeyRecord.decode(unhex(vector["bytes"]))
            self.assertEqual(record.encode().hex(), vector["bytes"])
            self.assertEqual(record.version, vector["version"])
            hashes = [vector["genesis_hash"], *vector["link_hashes"]]
            self.assertEqual([value.hex() for value in record.hashes], hashes)
            self.assertEqual(sorted(device.hex() for device in record.live), vector["live_devices"])
            devices = [
                {
                    "device_id": device.hex(),
                    "signing_key": record.live[device].hex(),
                    "kem_counter": current.counter,
                    "previous_kem_counter": previous and previous.counter,
                }
                for device, (current, previous) in sorted(record.kem_keys.items())
            ]
            self.assertEqual(devices, vector["devices"])

    def test_the_bad_key_records(self) -> None:
        for vector in self.each("bad_key_records"):
            with self.assertRaises(Refused) as refused:
                KeyRecord.decode(unhex(vector["bytes"]))
            self.assertEqual(refused.exception.code, vector["refusal"])

    def test_the_statements(self) -> None:
        for vector in self.each("statements"):
            person, record = PEOPLE[vector["by"]], latest(vector["by"])
            device = person["devices"][0]
            ids = unhex(person["box_id"]), unhex(device["device_id"])
            if vector["what"] == "set profile":
                sealed = unhex(vector["sealed_profile"])
                statement = profile.set_statement(*ids, vector["version"], sealed)
                self.check_statement(vector, device, statement)
                continue
            kind, text = vector["identifier"]["kind"], vector["identifier"]["normalised"]
            identifier = normalised(kind, text)
            if vector["what"] == "register":
                public = unhex(device["kem_keys"][0]["public"])
                args = (record.hashes[0], identifier, vector["discoverable"], public)
                statement = identity.register_statement(*args)
            else:
                statement = identity.authorize_statement(*ids, identifier, vector["code"])
            self.check_statement(vector, device, statement)

    def check_statement(self, vector: dict[str, Any], device: dict[str, Any], statement: bytes) -> None:
        self.assertEqual(statement.hex(), vector["statement"])
        signature = signing.sign(unhex(device["signing_seed"]), statement)
        self.assertEqual(signature.hex(), vector["signature"])

    def test_the_profiles(self) -> None:
        for vector in self.each("profiles"):
            box, record = unhex(PEOPLE[vector["of"]]["box_id"]), latest(vector["of"])
            args = unhex(vector["key"]), box, record, unhex(vector["bytes"])
            if vector["refusal"]:
                with self.assertRaises(Refused) as refused:
                    profile.open_profile(*args)
                self.assertEqual(refused.exception.code, vector["refusal"])
                continue
            names = ("version", "name", "about", "media_type")
            wanted = profile.Profile(*(vector[name] for name in names), unhex(vector["picture"]))
            self.assertEqual(profile.open_profile(*args), wanted)

    def test_the_tokens(self) -> None:
        for vector in self.each("tokens"):
            names = ("kem_seed", "encapsulated_key", "sealed_token")
            seed, encapsulated, sealed = (unhex(vector[name]) for name in names)
            args = (seed, encapsulated, TOKEN_INFO, vector["address"].encode(), sealed)
            if vector["good"]:
                self.assertEqual(hpke.open_sealed(*args).hex(), vector["token"])
            else:
                with self.assertRaises(NotGenuine):
                    hpke.open_sealed(*args)

    def test_the_conversations(self) -> None:
        for vector in self.each("conversations"):
            boxes = [unhex(PEOPLE[name]["box_id"]) for name in vector["between"]]
            self.assertEqual(envelope.direct_conversation(*boxes).hex(), vector["conversation"])
            self.assertEqual(envelope.direct_conversation(*boxes[::-1]).hex(), vector["conversation"])

    def test_the_safety_numbers(self) -> None:
        for vector in self.each("safety_numbers"):
            sides = [
                (unhex(PEOPLE[name]["box_id"]), unhex(PEOPLE[name]["genesis_hash"]))
                for name in vector["between"]
            ]
            self.assertEqual(safety_number(*sides), vector["number"])
            self.assertEqual(safety_number(*sides[::-1]), vector["number"])

    def test_the_hawk(self) -> None:
        for vector in self.each("hawk"):
            credentials = hawk.Credentials(vector["id"], unhex(vector["token"]), vector["host"])
            args = (credentials, vector["path"], unhex(vector["message"]))
            signed = hawk.Signed(*args, int(vector["ts"]), vector["nonce"])
            for name in ("id", "ts", "nonce", "hash", "mac"):
                self.assertIn(f'{name}="{vector[name]}"', signed.authorization)
            reply = (vector["server_authorization"], unhex(vector["reply"]))
            if vector["good"]:
                signed.check_reply(*reply)
            else:
                with self.assertRaises(Unauthentic):
                    signed.check_reply(*reply)

    def test_the_envelopes(self) -> None:
        for vector in self.each("envelopes"):
            body = envelope.Body.read(unhex(vector["body"]))
            key = unhex(vector["content_key"])
            self.assertEqual(envelope.commitment_of(key).hex(), vector["commitment"])
            self.assertEqual(body.commitment.hex(), vector["commitment"])
            self.assertEqual(body.nonce.hex(), vector["nonce"])
            wraps = [(wrap.device.hex(), wrap.key_counter) for wrap in body.wraps]
            wanted = [(wrap["device_id"], wrap["kem_counter"]) for wrap in vector["wraps"]]
            self.assertEqual(wraps, wanted)
            for device in vector["wraps"]:
                opened = self.open(vector, unhex(device["device_id"]))
                self.assertEqual(opened.content, _content(vector["content"]))
                self.assertEqual(opened.content.encode().hex(), vector["content_bytes"])
                statement = opened.statement
                self.assertEqual(statement.written_at_ms, vector["written_at_ms"])
                self.assertEqual(statement.conversation.hex(), vector["conversation"])
                signed = statement.signed_bytes(body.commitment, opened.content.encode())
                self.assertEqual(signed.hex(), vector["signed"])
                sender = PEOPLE[vector["from"]]["devices"][0]
                signature = signing.sign(unhex(sender["signing_seed"]), signed)
                self.assertEqual(signature.hex(), vector["signature"])

    def test_the_contents(self) -> None:
        for vector in self.each("contents"):
            read = content.decode_content(unhex(vector["bytes"]))
            self.assertEqual(read, _content(vector["content"]))
            self.assertEqual(read.encode().hex(), vector["bytes"])

    def test_the_bad_contents(self) -> None:
        for vector in self.each("bad_contents"):
            with self.assertRaises(Refused) as refused:
                content.decode_content(unhex(vector["bytes"]))
            self.assertEqual(refused.exception.code, "BAD_CONTENT")

    def test_the_bad_envelopes(self) -> None:
        for vector in self.each("bad_envelopes"):
            device = unhex(PEOPLE[vector["to"]]["devices"][0]["device_id"])
            with self.assertRaises(Refused) as refused:
                self.open(vector, device)
            self.assertEqual(refused.exception.code, vector["refusal"])

    def open(self, vector: dict[str, Any], device: bytes) -> envelope.Opened:
        """Opens an envelope as this device of its recipient."""
        person, sender = PEOPLE[vector["to"]], PEOPLE[vector["from"]]
        devices = {unhex(keys["device_id"]): keys for keys in person["devices"]}
        seeds = {kem["counter"]: unhex(kem["seed"]) for kem in devices[device]["kem_keys"]}
        records = latest(vector["to"]), latest(vector["from"])
        reading = envelope.Reading(unhex(person["box_id"]), device, seeds, *records)
        box, _, name = vector.get("sender", sender["address"]).partition("/")
        named = (unhex(box.replace("-", "")), unhex(name), vector["counter"])
        return envelope.open_envelope(reading, envelope.Arrival(*named, unhex(vector["body"])))


def _message(shown: dict[str, Any]) -> content.MessageId:
    box, _, device = shown["sender"].partition("/")
    return content.MessageId(
        unhex(box.replace("-", "")), unhex(device), shown["written_at_ms"]
    )


def _content(shown: dict[str, Any]) -> content.Content:
    """The content that a vector shows: what it has tells its kind."""
    match shown:
        case {"text": text}:
            return content.Text(text)
        case {"name": name, "media_type": media_type, "data": data}:
            return content.File(name, media_type, unhex(data))
        case {"picture": it}:
            return content.Picture(
                it["media_type"], *it["size"], it["caption"], unhex(it["data"])
            )
        case {"location": it}:
            return content.Location(
                it["latitude"], it["longitude"], it["accuracy_m"], it["label"]
            )
        case {"voice": it}:
            return content.Voice(it["media_type"], it["duration_ms"], unhex(it["data"]))
        case {"reaction": it}:
            return content.Reaction(_message(it["to"]), it["emoji"])
        case {"reply": it}:
            return content.Reply(_message(it["to"]), _content(it["content"]))
        case {"edit": it}:
            return content.Edit(_message(it["message"]), it["text"])
        case {"delete": message}:
            return content.Delete(_message(message))
        case {"receipt": it}:
            states = {word: number for number, word in content.RECEIPTS.items()}
            return content.Receipt(states[it["state"]], tuple(map(_message, it["messages"])))
        case {"control": it}:
            return content.Control(it["topic"], unhex(it["body"]))
        case _:
            return content.Unknown(shown["kind"], shown["version"], unhex(shown["rest"]))


class Pinning(unittest.TestCase):
    """What a device takes for a later state of the identity that it knows."""

    def setUp(self) -> None:
        of_bob = [vector for vector in VECTORS["key_records"] if vector["of"] == "bob"]
        self.history = [KeyRecord.decode(unhex(vector["bytes"])) for vector in of_bob]

    def test_each_record_goes_on_from_those_before(self) -> None:
        for at, later in enumerate(self.history):
            for pinned in self.history[: at + 1]:
                later.check_extends(pinned)

    def test_no_record_goes_back(self) -> None:
        for at, pinned in enumerate(self.history):
            for earlier in self.history[:at]:
                with self.assertRaises(NotGenuine):
                    earlier.check_extends(pinned)

    def test_another_identity_is_not_a_later_state(self) -> None:
        with self.assertRaises(NotGenuine):
            latest("alice").check_extends(self.history[0])


if __name__ == "__main__":
    unittest.main()
