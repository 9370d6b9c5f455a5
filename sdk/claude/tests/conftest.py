"""The servers that the tests need, the real `claude` beside them.

How to run, from the root of the repository:

    pip install ./sdk/python -r sdk/claude/tests/requirements.txt
    cd sdk/claude && AX=../../target/debug/ax pytest
"""

from __future__ import annotations

from real import model, own_server, server

__all__ = ["model", "own_server", "server"]
