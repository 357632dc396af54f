"""The protobuf messages of `rossby.v1`, compiled from the .proto when they are first needed."""

from __future__ import annotations

import importlib
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from grpc_tools import protoc

#: In this repository; a client elsewhere brings its own copy of the one file.
DEFAULT = Path(__file__).resolve().parents[3] / "proto" / "proto"
MAILBOX = "rossby/v1/mailbox.proto"


@cache
def messages(include: Path = DEFAULT) -> ModuleType:
    """The module with the messages; nothing generated is kept."""
    with tempfile.TemporaryDirectory(prefix="rossby-proto-") as out:
        status = protoc.main(["protoc", f"-I{include}", f"--python_out={out}", MAILBOX])
        if status != 0:
            raise RuntimeError(f"{include / MAILBOX} does not compile")
        sys.path.insert(0, out)
        try:
            importlib.invalidate_caches()
            return importlib.import_module("rossby.v1.mailbox_pb2")
        finally:
            sys.path.remove(out)
