"""Where a session of Claude is found: its name, and the collections within it."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, unquote

from agent_executor.records import session_name

# The conversation itself.
MAIN = "main"
# Its summary, as lists want it; each record replaces the one before.
SUMMARY = "summary"
# Which transcripts of subagents there are.
SUBPATHS = "subpaths"
# Transcripts of subagents are spread over so many collections, as a session has 64 at most, but
# any number of subagents. Who reads one transcript reads the others of its collection.
BUCKET_COUNT = 32

_PROJECT_BYTES_MAX = 120
_SESSION_BYTES_MAX = 90
_GENERATION = re.compile(r"~\d+$")


def project_prefix(prefix: str, project: str) -> str:
    """Return how the names of a project's sessions begin."""
    if len(quote(project, safe="")) > _PROJECT_BYTES_MAX:
        ending = re.sub(r"[^A-Za-z0-9._-]", "-", project)[-60:]
        project = f"{ending}-{hashlib.sha256(project.encode()).hexdigest()[:32]}"
    return session_name(prefix, project) + "/"


def name_of(prefix: str, project: str, session: str) -> str:
    """Return the name of a session.

    Raises:
        ValueError: Its id is empty, or longer than any that Claude makes.
    """
    escaped = session_name("", session)
    if not session or len(escaped) > _SESSION_BYTES_MAX:
        raise ValueError(f"a session's id has 1 to {_SESSION_BYTES_MAX} bytes, not {session!r}")
    return project_prefix(prefix, project) + escaped.removeprefix("/")


def session_of(name: str, start: str) -> str | None:
    """Return the id of the session that has a name; None if the name does not begin so."""
    if not name.startswith(start):
        return None
    return unquote(_GENERATION.sub("", name.removeprefix(start)))


def collection_of(subpath: str) -> str:
    """Return the collection of a transcript; an empty subpath means the conversation itself."""
    if not subpath:
        return MAIN
    return f"sub-{hashlib.sha256(subpath.encode()).digest()[0] % BUCKET_COUNT:02}"
