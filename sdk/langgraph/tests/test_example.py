"""The example, as its README has it."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

EXAMPLE = pathlib.Path(__file__).resolve().parents[3] / "examples/langgraph-checkpointer"


def order(server, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "order.py"), *args],
        env={**os.environ, "AX_SERVER": server.url, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_order_is_finished_by_the_third_process(server) -> None:
    begun = order(server, "1042")
    assert begun.stdout == "  reserve ...\nreserved. Pay?\nso far: reserved\n", begun.stderr
    killed = order(server, "1042", "yes", KILL_IN="pay")
    assert killed.returncode == -signal.SIGKILL
    done = order(server, "1042")
    assert done.stdout == "  pay ...\nso far: reserved, paid\n", done.stderr
    no = order(server, "1043")
    assert no.returncode == 0
    assert order(server, "1043", "no").stdout == "  cancel ...\nso far: reserved, canceled\n"
