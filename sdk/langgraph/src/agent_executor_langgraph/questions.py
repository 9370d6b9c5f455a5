"""Interrupts as questions to a person, and answers as what the graph goes on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_executor import Answer
from agent_executor.values import describe

_PROMPTS = ("prompt", "question", "message", "query", "description")
_CHOICES = ("choices", "options")


@dataclass(frozen=True)
class Question:
    """What a person is asked.

    Attributes:
        prompt: The question.
        kind: ``approval``, ``choice`` or ``text``.
        choices: Of a choice.
        details: More to decide by; any value with a JSON form.
        read: Makes what the graph is given out of the answer. If it raises ``ValueError``, the
            person is asked again. A text, a choice, or whether it was approved if left out.
    """

    prompt: str
    kind: str = "text"
    choices: tuple[str, ...] = ()
    details: Any = None
    read: Callable[[Answer], Any] | None = None

    def result(self, answer: Answer) -> Any:
        """Return what the graph is given.

        Raises:
            ValueError: The answer is none.
        """
        if self.read is not None:
            return self.read(answer)
        if self.kind == "approval":
            return answer.approved
        if answer.kind == "deny":
            raise ValueError("it was declined")
        return answer.choice if self.kind == "choice" else answer.text


@dataclass(frozen=True)
class Inquiry:
    """The questions of an interrupt, and what makes one value out of their results."""

    questions: Sequence[Question]
    join: Callable[[list[Any]], Any]


def inquiry(value: Any) -> Inquiry:
    """Return what an interrupt asks.

    - A text is a question whose answer is a text.
    - An object is one, too: with ``choices`` (or ``options``) a choice, with ``"ask": "approval"``
      a yes or no. Its ``prompt`` (or ``question``, ``message``, ...) is the question, all of it
      the details.
    - A request of LangChain's human-in-the-loop middleware asks about each of its actions, and is
      answered in its own terms.
    """
    if isinstance(value, Mapping):
        actions = value.get("action_requests")
        if isinstance(actions, list):
            reviews = value.get("review_configs") or [{}] * len(actions)
            asked = [_review(*one) for one in zip(actions, reviews, strict=False)]
            return Inquiry(asked, lambda decisions: {"decisions": decisions})
        if value.get("type") == "tool_approval":
            return Inquiry([_review(value, {})], lambda decisions: decisions[0])
    return Inquiry([_question(value)], lambda results: results[0])


def _question(value: Any) -> Question:
    if isinstance(value, str):
        return Question(value)
    details = describe(value)[0]
    if not isinstance(value, Mapping):
        return Question(json.dumps(details))
    named = [value[name] for name in _PROMPTS if isinstance(value.get(name), str)]
    prompt = named[0] if named else json.dumps(details)
    listed = [value[name] for name in _CHOICES if isinstance(value.get(name), (list, tuple))]
    if listed and all(isinstance(one, str) for one in listed[0]):
        return Question(prompt, "choice", tuple(listed[0]), details)
    kind = "approval" if value.get("ask") == "approval" else "text"
    return Question(prompt, kind, details=details)


def _review(action: Mapping[str, Any], config: Mapping[str, Any]) -> Question:
    name = str(action.get("name") or action.get("action") or "the tool")
    arguments = action.get("args", {})
    allowed = [str(one) for one in config.get("allowed_decisions") or ("approve", "reject")]
    prompt = f"Run {name}?"
    details = describe(dict(action))[0]
    if set(allowed) == {"approve", "reject"}:
        return Question(prompt, "approval", details=details, read=_approved)

    def decided(answer: Answer) -> dict[str, Any]:
        if answer.kind == "deny":
            return _approved(answer)
        if answer.choice != "edit":
            said = {"message": answer.text} if answer.text else {}
            return {"type": answer.choice, **said}
        edited = json.loads(answer.text or json.dumps(arguments))
        if not isinstance(edited, dict):
            raise ValueError("the arguments are no object")
        return {"type": "edit", "edited_action": {"name": name, "args": edited}}

    return Question(prompt, "choice", tuple(allowed), details, decided)


def _approved(answer: Answer) -> dict[str, Any]:
    if answer.approved:
        return {"type": "approve"}
    return {"type": "reject", **({"message": answer.text} if answer.text else {})}
