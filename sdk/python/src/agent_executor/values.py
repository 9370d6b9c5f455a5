"""Values that are recorded: their JSON form, how they come back, and their digest."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import hashlib
import json
import math
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, Union

from .errors import NotSerializable

JsonValue: TypeAlias = Any
"""``None``, ``bool``, ``int``, ``float``, ``str``, or a list or string-keyed dict of these."""

INT_MIN = -(2**63)
INT_MAX = 2**64 - 1
"""The integers that every JSON reader on the way keeps exactly."""


def encode(value: JsonValue) -> str:
    """Return the compact JSON text of a JSON value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def canonical(value: JsonValue) -> bytes:
    """Return the JSON text with sorted keys, by which equal values are equal bytes."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    )
    return text.encode("utf-8", "surrogatepass")


def dump(value: object, *, rich: bool = True, at: str = "value") -> JsonValue:
    """Return the JSON form of a value, or raise :class:`NotSerializable` and say where and why.

    Args:
        value: What to dump.
        rich: Whether objects that do not come back by themselves (dataclasses, pydantic models,
            enums, dates, UUIDs) are taken, too.
        at: The place of the value, for the error.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, (str, int, float)) and not isinstance(value, enum.Enum):
        return _dump_scalar(value, at)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [dump(item, rich=rich, at=f"{at}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _dump_mapping(value, rich, at)
    return _dump_object(value, rich, at)


def _dump_scalar(value: str | int | float, at: str) -> JsonValue:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise NotSerializable(f"{at} is a string with a lone surrogate") from None
        return str(value)
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise NotSerializable(f"{at} is an integer beyond 64 bits; record it as a string")
        return int(value)
    if not math.isfinite(value):
        raise NotSerializable(f"{at} is {value}, which JSON does not have")
    return float(value)


def _dump_mapping(value: Mapping[Any, Any], rich: bool, at: str) -> JsonValue:
    form: dict[str, JsonValue] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise NotSerializable(f"{at} has the key {key!r}; the keys of JSON are strings")
        form[str(key)] = dump(item, rich=rich, at=f"{at}[{key!r}]")
    return form


def _dump_object(value: object, rich: bool, at: str) -> JsonValue:
    kind = type(value)
    where = f"{at} is a {kind.__module__}.{kind.__qualname__}"
    form: JsonValue
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        form = {
            field.name: dump(getattr(value, field.name), at=f"{at}.{field.name}")
            for field in dataclasses.fields(value)
        }
    elif callable(getattr(value, "model_dump", None)):
        form = value.model_dump(mode="json")  # type: ignore[attr-defined]
    elif isinstance(value, enum.Enum):
        form = dump(value.value, at=at)
    elif isinstance(value, (datetime.datetime, datetime.date)):
        form = value.isoformat()
    elif isinstance(value, uuid.UUID):
        form = str(value)
    else:
        raise NotSerializable(f"{where}, which has no JSON form; pass to_json= and from_json=")
    if not rich:
        raise NotSerializable(
            f"{where}, which would come back as plain JSON; annotate what the function returns, "
            "or pass returns=, or to_json= and from_json="
        )
    return form


def build(shape: Any, value: JsonValue) -> Any:
    """Return the value of type ``shape`` whose JSON form is ``value``.

    Types that it does not know leave the value as it is.
    """
    origin, args = typing.get_origin(shape), typing.get_args(shape)
    if origin is typing.Annotated:
        return build(args[0], value)
    if origin in (Union, types.UnionType):
        return _build_union(args, value)
    if origin is list and isinstance(value, list):
        return [build(args[0], item) for item in value]
    if origin is tuple and isinstance(value, list):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(build(args[0], item) for item in value)
        return tuple(build(kind, item) for kind, item in zip(args, value, strict=True))
    if shape is tuple and isinstance(value, list):
        return tuple(value)
    if origin is dict and isinstance(value, dict):
        return {key: build(args[1], item) for key, item in value.items()}
    if isinstance(shape, type):
        return _build_class(shape, value)
    return value


def _build_union(shapes: tuple[Any, ...], value: JsonValue) -> Any:
    if value is None and type(None) in shapes:
        return None
    for shape in shapes:
        try:
            if shape is not type(None) and (is_rich(shape) or typing.get_origin(shape)):
                return build(shape, value)
        except (TypeError, ValueError, KeyError):
            continue
    return value


def _build_class(shape: type[Any], value: JsonValue) -> Any:
    if dataclasses.is_dataclass(shape):
        hints = typing.get_type_hints(shape)
        fields = {field.name: field.init for field in dataclasses.fields(shape)}
        made = {name: build(hints[name], value[name]) for name, init in fields.items() if init}
        return shape(**made)
    if callable(getattr(shape, "model_validate", None)):
        return shape.model_validate(value)
    if issubclass(shape, enum.Enum):
        return shape(value)
    if issubclass(shape, (datetime.datetime, datetime.date)):
        return shape.fromisoformat(value)
    if issubclass(shape, uuid.UUID):
        return shape(value)
    return value


def is_rich(shape: Any) -> bool:
    """Tell whether values of this type need :func:`build` to come back from JSON."""
    if not isinstance(shape, type):
        return any(is_rich(part) for part in typing.get_args(shape))
    known = (enum.Enum, datetime.date, uuid.UUID)
    return (
        dataclasses.is_dataclass(shape)
        or callable(getattr(shape, "model_validate", None))
        or issubclass(shape, known)
    )


def returned_shape(fn: Callable[..., object]) -> Any:
    """Return the annotation of what a function returns, or ``None`` if there is none to find."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not hasattr(fn, "__annotations__"):
        fn = type(fn).__call__
    try:
        return typing.get_type_hints(fn).get("return")
    except Exception:
        return None


@dataclasses.dataclass(frozen=True)
class Codec:
    """How the result of a step goes into the journal and comes back."""

    shape: Any = None
    to_json: Callable[[Any], JsonValue] | None = None
    from_json: Callable[[JsonValue], Any] | None = None

    def dump(self, value: object) -> JsonValue:
        """Return the JSON form of a result."""
        if self.to_json is not None:
            return dump(self.to_json(value), at="what to_json returned")
        returns_back = self.from_json is not None or is_rich(self.shape)
        return dump(value, rich=returns_back, at="the result")

    def load(self, form: JsonValue) -> Any:
        """Return the result whose JSON form this is."""
        if self.from_json is not None:
            return self.from_json(form)
        return build(self.shape, form)


def digest(name: str, args: JsonValue, kwargs: JsonValue) -> str:
    """Return the SHA-256 of a request, 64 hexadecimal digits."""
    request = {"args": args, "kwargs": kwargs, "name": name}
    return hashlib.sha256(canonical(request)).hexdigest()


def describe(value: object) -> tuple[JsonValue, bool]:
    """Return a JSON form of anything, and whether it says all of the value.

    What has no JSON form (a client, a lambda) is described by its type or name alone.
    """
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        parts = [describe(item) for item in value]
        return [form for form, _ in parts], all(whole for _, whole in parts)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = {key: describe(item) for key, item in value.items()}
        return {key: form for key, (form, _) in items.items()}, all(
            whole for _, whole in items.values()
        )
    try:
        return dump(value), True
    except Exception:
        kind = type(value)
        label = getattr(value, "__qualname__", None) or f"{kind.__module__}.{kind.__qualname__}"
        return {"$opaque": label}, False
