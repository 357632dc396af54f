"""The Python client against real nodes, and with devices of the `rossby` command line."""

from __future__ import annotations

import shutil
import unittest
import unittest.mock

from rossby_client import (
    ConnectionFailed,
    Device,
    File,
    Identifier,
    NotGenuine,
    ServiceError,
    Text,
    Unauthentic,
    hawk,
    proto,
    safety_number,
)
from rossby_client.connection import SERVICE
from service import Cluster, email

FETCH = SERVICE + "Fetch"


class OneNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.close)
        cls.paul = cls.cluster.python_device("paul")
        cls.rita = cls.cluster.rust_device("rita")

    def another(self, name: str) -> Device:
        """Another Python device, which knows Paul, for tests that leave a queue as nobody would."""
        device = self.cluster.python_device(name)
        device.look_up(self.paul.box)
        return device

    def refused(self, code: str, retry: str, call, *args) -> ServiceError:
        with self.assertRaises(ServiceError) as refused:
            call(*args)
        self.assertEqual((refused.exception.code, refused.exception.retry), (code, retry))
        return refused.exception

    # --- registration ------------------------------------------------------------------------

    def test_a_wrong_code_is_told_with_the_tries_left_and_the_right_one_still_passes(self) -> None:
        device = Device.create(self.cluster.folder / "wrong.json", self.cluster.connection())
        device.register(Identifier.email(email("wrong")))
        code = self.cluster.code(email("wrong"))
        wrong = code[:-1] + str((int(code[-1]) + 1) % 10)
        error = self.refused("WRONG_CODE", "changed", device.authorize, wrong)
        self.assertEqual(error.figures["attempts_left"], "4")
        device.authorize(code)
        token = device.credentials
        # The same code again gives the same token: an answer may have been lost.
        device.authorize(code)
        self.assertEqual(device.credentials, token)
        self.assertEqual(device.fetch(), [])

    def test_another_code_comes_no_sooner_than_the_service_says(self) -> None:
        device = Device.create(self.cluster.folder / "again.json", self.cluster.connection())
        device.connection.patience = 0.0
        device.register(Identifier.email(email("again")))
        error = self.refused("TOO_MANY_CODES", "same", device.register, Identifier.email(email("again")))
        self.assertGreater(error.retry_after, 0.0)
        self.assertLessEqual(error.retry_after, 60.0)

    def test_a_record_with_a_bad_signature_is_refused(self) -> None:
        device = Device.create(self.cluster.folder / "forged.json", self.cluster.connection())
        record = bytearray(device.record.encode())
        # Within the signature of the KEM key, which ends one byte before the record does.
        record[-10] ^= 1
        request = proto.messages().RegisterRequest(
            key_record=bytes(record),
            identifier=proto.messages().Identifier(email=email("forged")),
            signature=bytes(64),
        )
        call = (device.connection.exchange, SERVICE + "Register", request.SerializeToString(), None)
        self.refused("BAD_SIGNATURE", "no", *call)

    # --- letters both ways -------------------------------------------------------------------

    def test_letters_sealed_in_python_open_in_rust_and_the_other_way_round(self) -> None:
        paul, rita = self.paul, self.rita
        self.assertEqual(paul.look_up(Identifier.email(rita.email)), rita.box)
        texts = ["Guten Morgen, Rita", "", "ä€𝄞" * 1000]
        sent = [paul.send(rita.box, Text(text)) for text in texts]
        self.assertEqual(sent, sorted(set(sent)))
        data = bytes(range(256)) * 300
        paul.send(rita.box, File("bytes.bin", "application/octet-stream", data))
        inbox = rita.run("inbox")["messages"]
        self.assertEqual([message["status"] for message in inbox], ["received"] * 4)
        self.assertEqual([message["text"] for message in inbox[:3]], texts)
        self.assertEqual(inbox[3]["file"]["name"], "bytes.bin")
        self.assertEqual(inbox[3]["file"]["bytes"], len(data))

        path = self.cluster.folder / "answer.txt"
        path.write_bytes(data)
        rita.run("send", email("paul"), "Guten Abend, Paul")
        rita.run("send", email("paul"), f"--file={path}")
        came = [letter for letter in paul.fetch() if letter.sender_box == rita.box]
        self.assertEqual([letter.refused for letter in came], [None, None])
        contents = [letter.opened.content for letter in came]
        self.assertEqual(contents[0], Text("Guten Abend, Paul"))
        self.assertEqual((contents[1].name, contents[1].data), ("answer.txt", data))
        last = came[-1].sequence
        self.assertEqual(paul.acknowledge(last), last)
        # A cursor never goes back.
        self.assertEqual(paul.acknowledge(last - 1), last)
        self.assertEqual([letter.sequence for letter in paul.fetch() if letter.sequence <= last], [])

        number = safety_number(
            (paul.box, paul.record.hashes[0]),
            (rita.box, paul.contact(rita.box).hashes[0]),
        )
        rita.run("contacts", "add", email("paul"), "--name=Paul")
        self.assertEqual(rita.run("contacts", "show", "Paul")["safety_number"], number)

    def test_a_device_that_begins_again_from_its_file_goes_on(self) -> None:
        sender = self.another("resumed")
        sender.send(self.paul.box, Text("before"))
        again = Device.load(sender.path, self.cluster.connection())
        again.send(self.paul.box, Text("after"))
        self.assertEqual(self.texts_from(again), ["before", "after"])

    def test_letters_of_a_subscription_come_as_they_are_sent(self) -> None:
        listener, rita = self.cluster.python_device("listener"), self.rita
        letters = listener.listen()
        heard = []
        for text in ("one", "two", "three"):
            rita.run("send", email("listener"), text)
            heard.append(next(letters))
        self.assertEqual([letter.opened.content.text for letter in heard], ["one", "two", "three"])
        letters.close()
        # Begun anew it shows again what was not acknowledged, and nothing else.
        listener.acknowledge(heard[1].sequence)
        again = listener.listen()
        self.assertEqual(next(again).opened.content, Text("three"))
        again.close()

    def test_a_subscription_is_believed_in_its_order_and_for_its_own_request_only(self) -> None:
        self.paul.fetch()
        request = proto.messages().SubscribeRequest().SerializeToString()
        connection = self.paul.connection
        pages = connection.stream(request, self.paul.credentials)
        next(pages)
        pages.close()
        honest = hawk.Signed.check_reply
        changes = [
            lambda header, page, ext: (header, page, "1"),
            lambda header, page, ext: (header, page + b"\x10\x01", ext),
            lambda header, page, ext: (header.replace('ext="0"', 'ext="1"'), page, "1"),
            lambda header, page, ext: (header, page, None),
        ]
        for change in changes:
            def check(signed, header, page, ext=None, change=change):
                honest(signed, *change(header, page, ext))

            with unittest.mock.patch.object(hawk.Signed, "check_reply", check):
                with self.assertRaises(Unauthentic):
                    next(connection.stream(request, self.paul.credentials))

    def texts_from(self, sender: Device) -> list[str]:
        came = [letter for letter in self.paul.fetch() if letter.sender_box == sender.box]
        self.assertEqual([letter.refused for letter in came], [None] * len(came))
        return [letter.opened.content.text for letter in came]

    # --- counters and key records ------------------------------------------------------------

    def offer(self, sender: Device, text: str, counter: int) -> tuple[dict, object]:
        """Seals a text under this counter and offers it once: what was offered, and the outcome."""
        sender.stage(self.paul.box, counter, Text(text))
        staged = sender.outgoing(self.paul.box)
        return staged, sender.offer(self.paul.box, staged)

    def test_the_same_envelope_again_is_the_same_letter_and_another_is_refused(self) -> None:
        sender = self.another("repeats")
        staged, first = self.offer(sender, "once", 1)
        again = sender.offer(self.paul.box, staged)
        self.assertEqual((first.sequence, again.sequence), (first.sequence, first.sequence))
        _, other = self.offer(sender, "another under the same counter", 1)
        self.assertEqual((other.refusal.code, other.refusal.next_counter), ("COUNTER_REUSED", 2))
        self.assertEqual(self.texts_from(sender), ["once"])

    def test_a_counter_that_was_passed_over_stays_empty(self) -> None:
        sender = self.another("skips")
        self.offer(sender, "five", 5)
        _, late = self.offer(sender, "three", 3)
        self.assertEqual((late.refusal.code, late.refusal.next_counter), ("NOT_ACCEPTED", 6))
        self.assertEqual(self.texts_from(sender), ["five"])

    def test_a_device_set_back_to_an_older_state_loses_no_letter(self) -> None:
        sender = self.another("restored")
        backup = sender.path.with_suffix(".backup")
        shutil.copy(sender.path, backup)
        sender.send(self.paul.box, Text("first"))
        sender.send(self.paul.box, Text("second"))
        shutil.copy(backup, sender.path)
        restored = Device.load(sender.path, self.cluster.connection())
        restored.send(self.paul.box, Text("third"))
        self.assertEqual(self.texts_from(restored), ["first", "second", "third"])

    def test_a_letter_for_a_stale_key_record_is_sealed_again_under_its_counter(self) -> None:
        sender = self.another("stale")
        sender.stage(self.paul.box, 1, Text("for keys that are not Paul's"))
        staged = sender.outgoing(self.paul.box)
        staged["chain_version"] = 3
        refusal = sender.offer(self.paul.box, staged).refusal
        self.assertEqual(refusal.code, "STALE_KEY_RECORD")
        self.assertEqual(refusal.key_record, self.paul.record.encode())
        # And the client's own way out of it; but not if the record is the one that it sealed for.
        with self.assertRaises(NotGenuine):
            sender.flush(self.paul.box)
        staged["record"] = "an older one"
        sender.flush(self.paul.box)
        came = [letter for letter in self.paul.fetch() if letter.sender_box == sender.box]
        self.assertEqual([letter.counter for letter in came], [1])
        self.assertIsNone(came[0].refused)

    def test_strangers_are_told_apart_from_contacts(self) -> None:
        sender = self.another("seeker")
        self.refused("NO_USER", "no", sender.look_up, Identifier.email("nobody@rossby.example"))
        nobody = bytearray(self.paul.box)
        nobody[-1] ^= 1
        self.refused("NO_USER", "no", sender.look_up, bytes(nobody))

    def test_who_is_blocked_finds_nobody(self) -> None:
        blocked, rita = self.another("blocked"), self.rita
        blocked.look_up(rita.box)
        blocked.send(rita.box, Text("let me in"))
        rita.run("inbox")
        rita.run("block", address_of(blocked.box))
        self.refused("UNKNOWN_RECIPIENT", "no", blocked.send, rita.box, Text("let me in again"))
        self.refused("NO_USER", "no", blocked.look_up, rita.box)
        rita.run("unblock", address_of(blocked.box))
        blocked.send(rita.box, Text("thank you"))
        self.assertEqual([m["text"] for m in rita.run("inbox")["messages"]], ["thank you"])

    # --- who is asking -----------------------------------------------------------------------

    def sign(self, message: bytes = b"", **changes) -> hawk.Signed:
        ts = self.paul.connection.clock.now_s()
        given = {"credentials": self.paul.credentials, "path": FETCH, "message": message, "ts": ts}
        return hawk.Signed(**{**given, **changes})

    def ask(self, signed: hawk.Signed, message: bytes = b"", path: str = FETCH):
        return self.paul.connection.exchange(path, message, signed.authorization)

    def test_a_request_is_good_once(self) -> None:
        # Any call before settles what this leader wants the time to be.
        self.paul.fetch()
        signed = self.sign()
        reply, vouched = self.ask(signed)
        signed.check_reply(vouched, reply)
        error = self.refused("UNAUTHENTICATED", "changed", self.ask, signed)
        self.assertIsNone(error.server_time_ms)

    def test_a_request_is_good_for_its_own_message_path_and_token_only(self) -> None:
        self.paul.fetch()
        after = proto.messages().FetchRequest(after=7).SerializeToString()
        stranger = hawk.Credentials(self.paul.credentials.id, bytes(32), "rossby")
        elsewhere = hawk.Credentials(self.paul.credentials.id, self.paul.credentials.key, "else")
        for signed, message, path in [
            (self.sign(), after, FETCH),
            (self.sign(), b"", SERVICE + "Acknowledge"),
            (self.sign(credentials=stranger), b"", FETCH),
            (self.sign(credentials=elsewhere), b"", FETCH),
        ]:
            error = self.refused("UNAUTHENTICATED", "changed", self.ask, signed, message, path)
            self.assertIsNone(error.server_time_ms)
        call = (self.paul.connection.exchange, FETCH, b"", None)
        self.refused("UNAUTHENTICATED", "changed", *call)

    def test_a_wrong_clock_is_told_the_time_and_set_by_it(self) -> None:
        self.paul.fetch()
        now = self.paul.connection.clock.now_s()
        for wrong in (now - 3600, now + 3600):
            error = self.refused("UNAUTHENTICATED", "changed", self.ask, self.sign(ts=wrong))
            self.assertLess(abs(error.server_time_ms / 1000 - now), 300)
        for seconds in (-3600, 3600):
            device = Device.load(self.paul.path, self.cluster.connection())
            device.connection.clock.learn(now, (now + seconds) * 1000)
            device.fetch()
            self.assertLess(abs(device.connection.clock.now_s() - now), 300)

    def test_a_reply_that_was_changed_on_its_way_is_not_believed(self) -> None:
        device = Device.load(self.paul.path, self.cluster.connection())
        honest = device.connection.exchange
        changes = [
            lambda reply, vouched: (reply + b"\x10\x01", vouched),
            lambda reply, vouched: (reply, None),
            lambda reply, vouched: (reply, vouched.replace('mac="', 'mac="A')),
            lambda reply, vouched: (reply, vouched.partition(",")[0]),
        ]
        for change in changes:
            device.connection.exchange = lambda *args, change=change: change(*honest(*args))
            with self.assertRaises(Unauthentic):
                device.fetch()
        device.connection.exchange = honest
        device.fetch()

    # --- what must not be believed -----------------------------------------------------------

    def test_neither_client_believes_a_letter_that_was_changed(self) -> None:
        sender, rita = self.another("tampered"), self.rita
        sender.look_up(rita.box)
        for at, to in enumerate((rita.box, self.paul.box)):
            sender.stage(to, 1, Text("the amount is 10"))
            staged = sender.outgoing(to)
            body = bytearray.fromhex(staged["body"])
            body[-20] ^= 1
            staged["body"] = body.hex()
            self.assertTrue(sender.offer(to, staged).HasField("sequence"), at)
        in_rust = rita.run("inbox")["messages"]
        refused = ("unreadable", "the content can not be decrypted")
        self.assertEqual([(m["status"], m["reason"]) for m in in_rust], [refused])
        in_python = [letter for letter in self.paul.fetch() if letter.sender_box == sender.box]
        self.assertEqual([letter.opened for letter in in_python], [None])
        self.assertEqual([letter.refused.code for letter in in_python], ["CANNOT_DECRYPT"])

    def test_another_persons_key_record_is_not_believed(self) -> None:
        sender = self.another("careful")
        with self.assertRaises(NotGenuine):
            sender.pin(self.paul.box, sender.record.encode())
        self.assertEqual(sender.contact(self.paul.box).head, self.paul.record.head)


def address_of(box: bytes) -> str:
    text = box.hex()
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


class ThreeNodes(unittest.TestCase):
    """Over TLS, with any node for a door, and with one of them gone."""

    def test_letters_pass_between_both_clients_whichever_node_is_asked(self) -> None:
        cluster = Cluster(3)
        self.addCleanup(cluster.close)
        paul, rita = cluster.python_device("paul"), cluster.rust_device("rita")
        paul.look_up(Identifier.email(rita.email))
        servers = paul.connection.servers
        for number, server in enumerate(servers):
            paul.connection.servers = [server]
            paul.send(rita.box, Text(f"by node {number}"))
        rita.run("send", email("paul"), "heard")
        for server in servers:
            paul.connection.servers = [server]
            self.assertEqual([letter.opened.content for letter in paul.fetch()], [Text("heard")])
        with self.assertRaises(ConnectionFailed):
            untrusting = cluster.connection()
            untrusting.ca, untrusting.patience = other_authority(cluster), 0.0
            Device.load(paul.path, untrusting).fetch()

        paul.connection.servers = servers
        cluster.nodes[0].kill()
        paul.send(rita.box, Text("without node 1"))
        paul.acknowledge(1)
        self.assertEqual(paul.fetch(), [])
        texts = [message["text"] for message in rita.run("inbox")["messages"]]
        self.assertEqual(texts, ["by node 0", "by node 1", "by node 2", "without node 1"])


def other_authority(cluster: Cluster) -> bytes:
    from service import rossby_ok

    rossby_ok("cert", "ca", "--out", str(cluster.folder / "other"))
    return (cluster.folder / "other/ca.crt").read_bytes()


if __name__ == "__main__":
    unittest.main()
