"""What ADK expects of an artifact service, and what this one adds. Against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from google.adk.artifacts.artifact_util import get_artifact_uri
from google.adk.errors.input_validation_error import InputValidationError
from google.genai import types

from agent_executor_adk import AxArtifactService, AxSessionService
from conftest import Server

USER = "user"
REMOVED = types.Part(inline_data=types.Blob(mime_type="application/octet-stream", data=b""))


def image(data: bytes, **more: Any) -> types.Part:
    return types.Part(inline_data=types.Blob(mime_type="image/png", data=data, **more))


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def file(app: str, name: str = "f.png", session: str | None = "s") -> dict[str, Any]:
    return {"app_name": app, "user_id": USER, "session_id": session, "filename": name}


def scope(app: str, session: str | None = "s", user: str = USER) -> dict[str, Any]:
    return {"app_name": app, "user_id": user, "session_id": session}


def test_what_is_not_there_is_none(artifacts: AxArtifactService, app: str) -> None:
    async def main() -> None:
        assert await artifacts.load_artifact(**file(app)) is None
        assert await artifacts.load_artifact(**file(app), version=0) is None
        assert await artifacts.list_artifact_keys(**scope(app)) == []
        assert await artifacts.list_versions(**file(app)) == []
        assert await artifacts.list_artifact_versions(**file(app)) == []
        assert await artifacts.get_artifact_version(**file(app)) is None
        await artifacts.delete_artifact(**file(app))

    run(main())


def test_versions_count_from_zero_and_stay(
    artifacts: AxArtifactService, server: Server, app: str
) -> None:
    async def main() -> None:
        for n in range(3):
            assert await artifacts.save_artifact(**file(app), artifact=image(bytes([n]))) == n
        for service in (artifacts, AxArtifactService(server.uri)):
            assert await service.list_versions(**file(app)) == [0, 1, 2]
            for version, content in [(None, 2), (0, 0), (1, 1), (2, 2)]:
                found = await service.load_artifact(**file(app), version=version)
                assert found == image(bytes([content]))
            assert await service.load_artifact(**file(app), version=3) is None
            assert await service.load_artifact(**file(app), version=-1) is None

    run(main())


@pytest.mark.parametrize(
    "part",
    [
        types.Part(text="ünï"),
        types.Part(text="x" * 200_000),
        image(b""),
        image(bytes(range(256)) * 256, display_name="a picture"),
        image(b"y" * (10 << 20)),
        types.Part(file_data=types.FileData(file_uri="gs://b/f.pdf", mime_type="application/pdf")),
    ],
    ids=["text", "long text", "empty", "binary", "large", "file"],
)
def test_any_artifact_comes_back_as_it_was(
    artifacts: AxArtifactService, server: Server, app: str, part: types.Part
) -> None:
    async def main() -> None:
        await artifacts.save_artifact(**file(app), artifact=part)
        assert await AxArtifactService(server.uri).load_artifact(**file(app)) == part

    run(main())


def test_a_part_may_be_given_as_json(artifacts: AxArtifactService, app: str) -> None:
    async def main() -> None:
        given = {"inlineData": {"mimeType": "image/png", "data": "AP8="}}
        await artifacts.save_artifact(**file(app), artifact=given)
        assert await artifacts.load_artifact(**file(app)) == image(b"\x00\xff")

    run(main())


def test_what_is_no_artifact_is_refused(artifacts: AxArtifactService, app: str) -> None:
    async def main() -> None:
        call = types.Part(function_call=types.FunctionCall(name="f"))
        for part in (types.Part(), call):
            with pytest.raises(InputValidationError):
                await artifacts.save_artifact(**file(app), artifact=part)

    run(main())


def test_the_artifacts_of_a_user_are_in_all_sessions_of_the_user(
    artifacts: AxArtifactService, app: str
) -> None:
    async def main() -> None:
        await artifacts.save_artifact(**file(app, "a"), artifact=image(b"a"))
        await artifacts.save_artifact(**file(app, "user:b"), artifact=image(b"b"))
        await artifacts.save_artifact(**file(app, "c", session="t"), artifact=image(b"c"))
        assert await artifacts.list_artifact_keys(**scope(app)) == ["a", "user:b"]
        assert await artifacts.list_artifact_keys(**scope(app, "t")) == ["c", "user:b"]
        assert await artifacts.list_artifact_keys(**scope(app, None)) == ["user:b"]
        assert await artifacts.list_artifact_keys(**scope(app, "s", "other")) == []
        assert await artifacts.list_artifact_keys(**scope(f"{app}x")) == []
        for session in ("s", "t", None):
            found = await artifacts.load_artifact(**file(app, "user:b", session))
            assert found == image(b"b")
        assert await artifacts.load_artifact(**file(app, "a", "t")) is None
        assert await artifacts.save_artifact(**file(app, "user:b", "t"), artifact=image(b"2")) == 1

    run(main())


def test_what_belongs_to_no_session_belongs_to_the_user_and_loads_as_it_is_listed(
    artifacts: AxArtifactService, app: str
) -> None:
    async def main() -> None:
        await artifacts.save_artifact(**file(app, "d", None), artifact=image(b"d"))
        for session in ("s", None):
            (name,) = await artifacts.list_artifact_keys(**scope(app, session))
            assert await artifacts.load_artifact(**file(app, name, session)) == image(b"d")
        assert await artifacts.load_artifact(**file(app, "d", None)) == image(b"d")

    run(main())


def test_what_is_known_of_versions(artifacts: AxArtifactService, app: str) -> None:
    async def main() -> None:
        text = types.Part(text="t")
        metadata = {"by": "me", "n": [1]}
        await artifacts.save_artifact(**file(app), artifact=image(b"x"), custom_metadata=metadata)
        await artifacts.save_artifact(**file(app), artifact=text)
        first, second = await artifacts.list_artifact_versions(**file(app))
        assert (first.version, first.mime_type, first.custom_metadata) == (0, "image/png", metadata)
        assert (second.version, second.mime_type, second.custom_metadata) == (1, "text/plain", {})
        assert first.create_time <= second.create_time
        assert first.canonical_uri != second.canonical_uri
        for version, expected in [(None, second), (0, first), (1, second), (2, None), (-1, None)]:
            found = await artifacts.get_artifact_version(**file(app), version=version)
            assert found == expected
        first.custom_metadata["by"] = "you"
        again = await artifacts.get_artifact_version(**file(app), version=0)
        assert again is not None
        assert again.custom_metadata == metadata

    run(main())


def test_a_deleted_artifact_is_gone_with_all_versions(
    artifacts: AxArtifactService, server: Server, app: str
) -> None:
    async def main() -> None:
        for name in ("a", "b"):
            await artifacts.save_artifact(**file(app, name), artifact=image(b"1"))
        await artifacts.save_artifact(**file(app, "a"), artifact=image(b"2"))
        await artifacts.delete_artifact(**file(app, "a"))
        for service in (artifacts, AxArtifactService(server.uri)):
            assert await service.load_artifact(**file(app, "a")) is None
            assert await service.load_artifact(**file(app, "a"), version=0) is None
            assert await service.list_versions(**file(app, "a")) == []
            assert await service.list_artifact_keys(**scope(app)) == ["b"]
        assert await artifacts.save_artifact(**file(app, "a"), artifact=image(b"3")) == 0
        assert await artifacts.load_artifact(**file(app, "a")) == image(b"3")

    run(main())


def test_of_many_that_save_at_once_each_has_a_version_of_its_own(server: Server, app: str) -> None:
    async def main() -> None:
        services = [AxArtifactService(server.uri) for _ in range(8)]
        saved = [
            service.save_artifact(**file(app), artifact=image(bytes([n])))
            for n, service in enumerate(services)
        ]
        versions = await asyncio.gather(*saved)
        assert sorted(versions) == list(range(8))
        for n, version in enumerate(versions):
            found = await services[0].load_artifact(**file(app), version=version)
            assert found == image(bytes([n]))

    run(main())


def test_references_are_followed_within_what_one_may_see(
    artifacts: AxArtifactService, app: str
) -> None:
    def refer(
        name: str, version: int = 0, session: str | None = "s", user: str = USER
    ) -> types.Part:
        uri = get_artifact_uri(app, user, name, version, session)
        return types.Part(file_data=types.FileData(file_uri=uri, mime_type="image/png"))

    async def main() -> None:
        await artifacts.save_artifact(**file(app, "target"), artifact=image(b"t"))
        await artifacts.save_artifact(**file(app, "one"), artifact=refer("target"))
        await artifacts.save_artifact(**file(app, "two"), artifact=refer("one"))
        assert await artifacts.load_artifact(**file(app, "two")) == image(b"t")
        await artifacts.save_artifact(**file(app, "user:u"), artifact=image(b"u"))
        await artifacts.save_artifact(**file(app, "of user"), artifact=refer("user:u", 0, None))
        assert await artifacts.load_artifact(**file(app, "of user")) == image(b"u")
        await artifacts.save_artifact(**file(app, "none"), artifact=refer("nothing"))
        assert await artifacts.load_artifact(**file(app, "none")) is None
        await artifacts.save_artifact(**file(app, "circle"), artifact=refer("circle"))
        with pytest.raises(InputValidationError):
            await artifacts.load_artifact(**file(app, "circle"))
        bad = types.Part(file_data=types.FileData(file_uri="artifact://nonsense"))
        for part in (refer("x", user="other"), refer("x", session="t"), bad):
            with pytest.raises(InputValidationError):
                await artifacts.save_artifact(**file(app, "no"), artifact=part)

    run(main())


def test_what_a_rewound_session_has_removed_is_not_there(
    artifacts: AxArtifactService, app: str
) -> None:
    async def main() -> None:
        await artifacts.save_artifact(**file(app), artifact=image(b"1"))
        assert await artifacts.save_artifact(**file(app), artifact=REMOVED) == 1
        assert await artifacts.load_artifact(**file(app)) is None
        assert await artifacts.load_artifact(**file(app), version=0) == image(b"1")

    run(main())


def test_the_artifacts_of_a_session_go_with_it(
    artifacts: AxArtifactService, sessions: AxSessionService, app: str
) -> None:
    async def main() -> None:
        await sessions.create_session(**scope(app))
        await artifacts.save_artifact(**file(app, "a"), artifact=image(b"a"))
        await artifacts.save_artifact(**file(app, "user:b"), artifact=image(b"b"))
        await sessions.delete_session(**scope(app))
        assert await artifacts.list_artifact_keys(**scope(app)) == ["user:b"]
        await sessions.create_session(**scope(app))
        assert await artifacts.load_artifact(**file(app, "a")) is None
        assert await artifacts.save_artifact(**file(app, "a"), artifact=image(b"2")) == 0

    run(main())


def test_an_artifact_may_be_there_before_its_session(
    artifacts: AxArtifactService, server: Server, app: str
) -> None:
    async def main() -> None:
        sessions = AxSessionService(server.uri)
        await artifacts.save_artifact(**file(app, "a"), artifact=image(b"a"))
        assert await sessions.get_session(**scope(app)) is None
        assert (await sessions.list_sessions(app_name=app)).sessions == []
        await sessions.create_session(**scope(app))
        found = await sessions.get_session(**scope(app))
        assert found is not None
        assert found.events == []
        assert await artifacts.load_artifact(**file(app, "a")) == image(b"a")

    run(main())
