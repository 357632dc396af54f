"""A real cluster of `rossby` processes on loopback, and devices of the `rossby` command line.

`ROSSBY_BIN` names the binary. Ports are of the nodes' own choice; nothing waits for a duration, only
for conditions.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, TypeVar

from rossby_client import Connection, Device, Identifier

BIN = os.environ["ROSSBY_BIN"]
#: Nothing here takes as long, even on a busy machine.
PATIENCE_S = 120.0
#: And all of it together no longer than this: a test that hangs fails, with every thread's place.
ALL_S = 1200.0
T = TypeVar("T")

_running: list[subprocess.Popen[bytes]] = []


def _kill_all() -> None:
    for process in _running:
        if process.poll() is None:
            process.kill()
            process.wait()


def _give_up() -> None:
    faulthandler.dump_traceback(all_threads=True)
    _kill_all()
    os._exit(1)


def _terminated(*_: object) -> None:
    _kill_all()
    os._exit(143)


# Whatever ends the tests ends the nodes.
atexit.register(_kill_all)
signal.signal(signal.SIGTERM, _terminated)
_watchdog = threading.Timer(ALL_S, _give_up)
_watchdog.daemon = True
_watchdog.start()


def eventually(what: str, look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"gave up waiting: {what}")
        time.sleep(0.02)
    return found


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ROSSBY_")}


def rossby(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs `rossby` to its end."""
    return subprocess.run(
        [BIN, *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
        env=clean_environment(),
    )


def rossby_ok(*args: str) -> str:
    done = rossby(*args)
    if done.returncode != 0:
        raise AssertionError(f"rossby {args[0]} failed ({done.returncode}): {done.stderr}")
    return done.stdout


class Node:
    def __init__(self, folder: Path, number: int, flags: list[str]) -> None:
        self.number, self.folder = number, folder / f"node-{number}"
        self.folder.mkdir()
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        out = open(self.folder / "log", "ab")
        args = [
            f"--node={self.number}",
            f"--data={self.data}",
            f"--secrets={self.folder / 'secrets/cluster.keys'}",
            "--listen=127.0.0.1:0",
            "--http=127.0.0.1:0",
            "--courier=file",
            *self._flags,
        ]
        with out:
            self._process = subprocess.Popen(
                [BIN, "serve", *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=clean_environment(),
            )
        _running.append(self._process)

    def addresses(self) -> dict[str, Any]:
        """Where its doors are, once they are open."""
        return eventually(f"node {self.number} says where it is\n{self.log()}", self._addresses)

    def _addresses(self) -> dict[str, Any] | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"node {self.number} has ended:\n{self.log()}")
        try:
            found = json.loads((self.data / "addresses.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found if found["pid"] == self._process.pid else None

    def wait_for(self, page: str) -> None:
        """Waits until a page of its health answers with 200."""
        url = f"http://{self.addresses()['http']}{page}"
        # Never through a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def look() -> bool | None:
            try:
                with opener.open(url, timeout=10) as answer:
                    return True if answer.status == 200 else None
            except (urllib.error.URLError, OSError):
                return None

        eventually(f"node {self.number} answers {page}\n{self.log()}", look)

    def log(self) -> str:
        try:
            return (self.folder / "log").read_text()
        except FileNotFoundError:
            return ""

    def codes(self) -> list[str]:
        """The lines of its courier that are whole."""
        try:
            text = (self.folder / "secrets/codes.jsonl").read_text()
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _running.remove(self._process)
            self._process = None


class Cluster:
    """One node, or several with TLS; killed and removed at the end."""

    def __init__(self, count: int = 1) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="rossby-interop-")
        self.folder = Path(self._temporary.name)
        self.ca: Path | None = None
        flags = self._certificates(count) if count > 1 else [[]]
        self.nodes = [Node(self.folder, at + 1, flags[at]) for at in range(count)]
        try:
            self._start(count)
        except BaseException:
            self.close()
            raise

    def _start(self, count: int) -> None:
        for node in self.nodes:
            node.start()
        if count > 1:
            for node in self.nodes:
                node.wait_for("/livez")
            named = [f"--node={node.number}={node.addresses()['peers']}" for node in self.nodes]
            rossby_ok("cluster", "init", f"--data={self.nodes[0].data}", *named)
        for node in self.nodes:
            node.wait_for("/readyz")

    def _certificates(self, count: int) -> list[list[str]]:
        certs = self.folder / "certs"
        rossby_ok("cert", "ca", "--out", str(certs))
        self.ca = certs / "ca.crt"
        flags = []
        for number in range(1, count + 1):
            names = ["--dns", "localhost", "--ip", "127.0.0.1", "--out", str(certs)]
            rossby_ok("cert", "node", "--ca", str(certs), "--node", str(number), *names)
            pair = [f"{certs}/node-{number}.crt", f"{certs}/node-{number}.key"]
            flags.append([
                "--peer-listen=127.0.0.1:0",
                f"--peer-cert={pair[0]}",
                f"--peer-key={pair[1]}",
                f"--peer-ca={self.ca}",
                f"--tls-cert={pair[0]}",
                f"--tls-key={pair[1]}",
            ])
        return flags

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        if sys.exc_info()[0] is not None:
            for node in self.nodes:
                print(f"--- node {node.number}\n{node.log()}", file=sys.stderr)
        self._temporary.cleanup()

    def code(self, identifier: str, besides: str | None = None) -> str:
        """The code that was sent last to an identifier; `besides` is one that is known already."""

        def look() -> str | None:
            lines = [line.split("\t") for node in self.nodes for line in node.codes()]
            codes = sorted((int(line[0]), line[2]) for line in lines if line[1] == identifier)
            return codes[-1][1] if codes and codes[-1][1] != besides else None

        return eventually(f"a code for {identifier}", look)

    def servers(self) -> list[str]:
        return [node.addresses()["clients"] for node in self.nodes]

    # --- devices ---------------------------------------------------------------------------------

    def connection(self) -> Connection:
        ca = None if self.ca is None else self.ca.read_bytes()
        return Connection(self.servers(), ca, patience=60.0)

    def python_device(self, name: str) -> Device:
        """A device of the Python client that has a box."""
        device = Device.create(self.folder / f"{name}.json", self.connection())
        device.register(Identifier.email(email(name)))
        device.authorize(self.code(email(name)))
        return device

    def rust_device(self, name: str) -> RustDevice:
        """A device of the `rossby` command line that has a box."""
        return RustDevice(self, name)


def email(name: str) -> str:
    return f"{name}@rossby.example"


class RustDevice:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self.home, self.email = cluster.folder / f"home-{name}", email(name)
        where = [f"--server={'http' if cluster.ca is None else 'https'}://{at}" for at in cluster.servers()]
        if cluster.ca is not None:
            where.append(f"--ca={cluster.ca}")
        registered = self.run("register", f"--email={self.email}", *where)
        self.box = bytes.fromhex(registered["box"].replace("-", ""))
        self.run("authorize", cluster.code(self.email))

    def run(self, *args: str) -> Any:
        """Runs a command on this device; what it says, as JSON."""
        device = [f"--home={self.home}", "--no-passphrase", "--json", "--timeout=60"]
        return json.loads(rossby_ok(*args, *device))
