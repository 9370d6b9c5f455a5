"""Stubs of the AX wire: generated once from its proto files, and kept."""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
import tempfile
import types

FILES = ("proto/content.proto", "proto/ax.proto")


def load() -> tuple[types.ModuleType, types.ModuleType]:
    """Returns the modules of messages and of services."""
    protos = pathlib.Path(os.environ.get("AX_PROTO") or _beside())
    made = hashlib.sha256(b"".join((protos / name).read_bytes() for name in FILES)).hexdigest()
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    stubs = caches / f"ax1-stubs-{made[:16]}"
    if not stubs.exists():
        _generate(protos, stubs)
    sys.path.insert(0, str(stubs))
    from proto import ax_pb2, ax_pb2_grpc

    return ax_pb2, ax_pb2_grpc


def _beside() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parents[2] / "crates/ax-proto/proto/ax1"


def _generate(protos: pathlib.Path, to: pathlib.Path) -> None:
    import grpc_tools
    from grpc_tools import protoc

    to.parent.mkdir(parents=True, exist_ok=True)
    common = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    made = pathlib.Path(tempfile.mkdtemp(prefix=to.name, dir=to.parent))
    options = [f"-I{protos}", f"-I{common}", f"--python_out={made}", f"--grpc_python_out={made}"]
    if protoc.main(["protoc", *options, *FILES]) != 0:
        raise SystemExit("the stubs cannot be generated")
    (made / "proto" / "__init__.py").touch()
    try:
        made.rename(to)
    except OSError:
        # Somebody else was faster, with the same.
        if not to.exists():
            raise
