"""ADK artifacts in Agent Executor: each version is a record, its bytes are a blob."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from agent_executor.client import AsyncClient
from agent_executor.records import AsyncCollection, Blob, Record, Stale
from google.adk.artifacts import artifact_util
from google.adk.artifacts.base_artifact_service import (
    ArtifactVersion,
    BaseArtifactService,
    ensure_part,
)
from google.adk.errors.input_validation_error import InputValidationError
from google.genai import types

from .place import AGENT, Place, Views, adk_name, user_name

COLLECTION = "artifacts"
# How many references are followed from one artifact to the next.
REFERENCES_MAX = 5

_USER = "user:"
_BYTES = "bytes"
# What a rewound session leaves in the place of an artifact that was not there yet.
_REMOVED = types.Part(inline_data=types.Blob(mime_type="application/octet-stream", data=b""))


@dataclass(frozen=True)
class _Version:
    """A version of an artifact: what it is without its bytes, and where these are."""

    part: dict[str, Any]
    blob: Blob | None
    about: ArtifactVersion


class _Files:
    """The artifacts of a session, or of a user."""

    def __init__(self, client: AsyncClient, name: str, agent: str) -> None:
        self.name = name
        self.versions: dict[str, list[_Version]] = {}
        self._records = AsyncCollection(client, name, COLLECTION, agent=agent, take=self._take)

    async def refresh(self) -> dict[str, list[_Version]]:
        """Return what there is now."""
        await self._records.refresh()
        return self.versions

    async def save(
        self, filename: str, part: types.Part, mime_type: str | None, metadata: dict[str, Any]
    ) -> int:
        """Write the next version; return its number."""
        without = {"inline_data": {"data"}}
        form = part.model_dump(mode="json", exclude=without, exclude_none=True)
        blobs = {_BYTES: part.inline_data.data or b""} if part.inline_data is not None else {}
        saved = {"file": filename, "part": form, "mime": mime_type, "metadata": metadata}
        while True:
            await self._records.refresh()
            version = len(self.versions.get(filename, []))
            data = {"saved": {**saved, "version": version, "time": time.time()}}
            try:
                await self._records.append(data, blobs)
            except Stale:
                continue  # somebody else saved something: look again which number is next
            return version

    async def delete(self, filename: str) -> None:
        """Forget all versions."""
        await self._records.refresh()
        if filename in self.versions:
            await self._records.append({"deleted": filename}, if_unchanged=False)

    async def load(self, version: _Version) -> types.Part:
        """Read a version with its bytes."""
        # Only a JSON text is read as one: bytes are in base64.
        part: types.Part = types.Part.model_validate_json(json.dumps(version.part))
        if version.blob is not None and part.inline_data is not None:
            part.inline_data.data = await self._records.read(version.blob)
        return part

    def _take(self, record: Record) -> None:
        if "deleted" in record.data:
            self.versions.pop(record.data["deleted"], None)
            return
        saved = record.data["saved"]
        about = ArtifactVersion(
            version=saved["version"],
            canonical_uri=f"ax:{self.name}#{saved['file']}/versions/{saved['version']}",
            custom_metadata=saved["metadata"],
            create_time=saved["time"],
            mime_type=saved["mime"],
        )
        version = _Version(saved["part"], record.blobs.get(_BYTES), about)
        self.versions.setdefault(saved["file"], []).append(version)


class AxArtifactService(BaseArtifactService):  # type: ignore[misc,unused-ignore]
    """Keeps ADK artifacts in Agent Executor.

    An artifact is durable when ``save_artifact`` returns. The artifacts of an ADK session are kept
    with it and deleted with it; those whose names begin with ``user:`` are kept with the user. The
    bytes of an artifact that was deleted stay in the session's log until the session is deleted.
    """

    def __init__(
        self, uri: str = "", *, client: AsyncClient | None = None, agent: str = AGENT, **_: Any
    ) -> None:
        """Keep artifacts at an address; see :class:`agent_executor_adk.AxSessionService`."""
        self._place = Place(uri, client, agent)
        self._files = Views(self._place, _Files)

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: types.Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Save the next version of an artifact; return its number, from 0 on.

        Raises:
            InputValidationError: It is neither text, nor bytes, nor a file, or it refers to an
                artifact of somebody else.
        """
        part = ensure_part(artifact)
        mime_type = _mime_type(part, app_name, user_id, session_id)
        base, filename = _where(app_name, user_id, session_id, filename)
        metadata = dict(custom_metadata or {})
        return await self._files.do(
            base, lambda files: files.save(filename, part, mime_type, metadata)
        )

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> types.Part | None:
        """Return a version of an artifact, the newest one if none is named, or None.

        Raises:
            InputValidationError: It refers to an artifact of somebody else, or in a circle.
        """
        for remaining in range(REFERENCES_MAX, -1, -1):
            part = await self._load(app_name, user_id, session_id, filename, version)
            if part is None or part == _REMOVED:
                return None
            if not artifact_util.is_artifact_ref(part):
                return part
            file_data = part.file_data
            target = artifact_util.resolve_artifact_reference(
                file_uri=file_data.file_uri if file_data and file_data.file_uri else "",
                app_name=app_name,
                user_id=user_id,
                session_id=session_id,
                remaining_depth=remaining,
            )
            filename, version, session_id = target.filename, target.version, target.session_id
        raise AssertionError("the last reference is refused")

    async def list_artifact_keys(
        self, *, app_name: str, user_id: str, session_id: str | None = None
    ) -> list[str]:
        """List the names of the artifacts of a session and of its user, or of the user only."""
        bases = [user_name(app_name, user_id)]
        if session_id is not None:
            bases.append(adk_name(app_name, user_id, session_id))
        found = [await self._files.do(base, lambda files: files.refresh()) for base in bases]
        return sorted(name for files in found for name in files)

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Delete all versions of an artifact."""
        base, filename = _where(app_name, user_id, session_id, filename)
        await self._files.do(base, lambda files: files.delete(filename))

    async def list_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        """List the numbers of all versions of an artifact."""
        versions = await self._versions(app_name, user_id, session_id, filename)
        return [version.about.version for version in versions]

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """List what is known of all versions of an artifact."""
        versions = await self._versions(app_name, user_id, session_id, filename)
        return [version.about.model_copy(deep=True) for version in versions]

    async def get_artifact_version(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> ArtifactVersion | None:
        """Return what is known of a version of an artifact, the newest one if none is named."""
        versions = await self._versions(app_name, user_id, session_id, filename)
        found = _pick(versions, version)
        return found.about.model_copy(deep=True) if found else None

    async def _versions(
        self, app: str, user: str, session: str | None, filename: str
    ) -> list[_Version]:
        base, filename = _where(app, user, session, filename)
        found = await self._files.do(base, lambda files: files.refresh())
        return found.get(filename, [])

    async def _load(
        self, app: str, user: str, session: str | None, filename: str, version: int | None
    ) -> types.Part | None:
        base, filename = _where(app, user, session, filename)

        async def load(files: _Files) -> types.Part | None:
            found = _pick((await files.refresh()).get(filename, []), version)
            return await files.load(found) if found else None

        return await self._files.do(base, load)


def _where(app: str, user: str, session: str | None, filename: str) -> tuple[str, str]:
    """Return in which session an artifact is kept, and under which name.

    What belongs to no session belongs to the user, and is listed so that it can be loaded from
    each of the user's sessions.
    """
    if session is not None and not filename.startswith(_USER):
        return adk_name(app, user, session), filename
    return user_name(app, user), _USER + filename.removeprefix(_USER)


def _pick(versions: list[_Version], number: int | None) -> _Version | None:
    if number is None:
        return versions[-1] if versions else None
    return versions[number] if 0 <= number < len(versions) else None


def _mime_type(part: types.Part, app: str, user: str, session: str | None) -> str | None:
    """Return the type of what is to be saved, if it is something that can be."""
    if part.inline_data is not None:
        return part.inline_data.mime_type
    if part.text is not None:
        return "text/plain"
    if part.file_data is None:
        raise InputValidationError("An artifact is a text, bytes or a file; this part is neither.")
    if artifact_util.is_artifact_ref(part):
        target = artifact_util.parse_artifact_uri(part.file_data.file_uri or "")
        if target is None:
            raise InputValidationError(f"Invalid artifact reference URI: {part.file_data.file_uri}")
        artifact_util.validate_artifact_reference_scope(
            app_name=app, user_id=user, session_id=session, parsed_uri=target
        )
        return None
    return part.file_data.mime_type
