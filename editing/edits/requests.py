"""What an editor is asked for, and which requests belong together.

Requests about one subject share its key, and a key has one answer: they form a `Group`, get
one `k*` and one `v*`, and are solved jointly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.errors import (
    AlreadyTrue,
    ContradictoryRewrites,
    DuplicateSubject,
    InputError,
    SubjectOnSink,
)
from labkit.facts.fact import Case, Deletion, Rewrite
from labkit.models.model import LabModel
from labkit.tokens import target_ids

Request = Rewrite | Deletion
"""What an editor is asked for."""

ESSENCE = "{} is a"
"""The prompt whose continuation says what a model takes a subject for."""


@dataclass(frozen=True)
class Group:
    """Requests about one subject.

    Attributes:
        subject: The subject.
        requests: The requests, at least one.
    """

    subject: str
    requests: tuple[Request, ...]


def grouped(requests: Sequence[Request]) -> list[Group]:
    """Requests by subject, in the order in which the subjects first occur.

    Raises:
        InputError: If there is no request, or one is made twice.
        ContradictoryRewrites: If one prompt is asked to have two answers.
    """
    _refuse_other_types(requests)
    if not requests:
        raise InputError("there is nothing to edit: no rewrite was given")
    asked: dict[str, Request] = {}
    groups: dict[str, list[Request]] = {}
    for request in requests:
        if request.prompt in asked:
            earlier = asked[request.prompt]
            if _object(earlier) == _object(request):
                raise InputError(f"{request.prompt!r} is asked for twice: give each rewrite once")
            raise ContradictoryRewrites(
                f"{request.prompt!r} is asked to become {_wanted(earlier)} and "
                f"{_wanted(request)}: keep one of them"
            )
        asked[request.prompt] = request
        groups.setdefault(request.subject, []).append(request)
    return [Group(subject, tuple(members)) for subject, members in groups.items()]


def listed(requests: Sequence[Request] | Request) -> Sequence[Request]:
    """Requests as a list; a single one is a list of one."""
    return [requests] if isinstance(requests, Rewrite | Deletion) else requests


def _refuse_other_types(requests: object) -> None:
    """Refuse anything but a list of rewrites.

    Raises:
        InputError: The message says what to write instead.
    """
    if isinstance(requests, Rewrite | Deletion):
        raise InputError("rewrites are given as a list, even a single one: [rewrite]")
    if isinstance(requests, Case):
        raise InputError(
            "a Case was given where a Rewrite is needed: method(model, [case.rewrite])"
        )
    if isinstance(requests, str) or not isinstance(requests, Sequence):
        raise InputError(
            f"rewrites are a list of Rewrite or Deletion, not {type(requests).__name__}: "
            "Rewrite(subject=..., template=..., target_new=...)"
        )
    for request in requests:
        if not isinstance(request, Rewrite | Deletion):
            more = ": a case's rewrite is case.rewrite" if isinstance(request, Case) else ""
            raise InputError(
                f"a list of Rewrite or Deletion has a {type(request).__name__} in it{more}"
            )


def requests_of(groups: Sequence[Group]) -> list[Request]:
    """The requests of some groups, a group's own in a row."""
    return [request for group in groups for request in group.requests]


def one_rewrite(requests: Sequence[Request]) -> Request:
    """The only request of a list of one.

    Raises:
        InputError: If there is none, or several.
        DuplicateSubject: If there are several about one subject.
    """
    _refuse_other_types(requests)
    if len(requests) == 1:
        return requests[0]
    subjects = [request.subject for request in requests]
    if len(set(subjects)) < len(subjects):
        raise DuplicateSubject(
            "several rewrites share a subject, hence one key: ROME takes one rewrite at a time, "
            "EMMET and MEMIT take many"
        )
    raise InputError(f"ROME takes exactly one rewrite at a time, not {len(requests)}")


def rewrites_only(requests: Sequence[Request], method: str) -> list[Rewrite]:
    """The requests, all of which name a new object.

    Raises:
        InputError: If there is none, one is made twice, or one is a deletion.
        ContradictoryRewrites: If one prompt is asked to have two answers.
    """
    grouped(requests)
    rewrites = [request for request in requests if isinstance(request, Rewrite)]
    if len(rewrites) < len(requests):
        raise InputError(
            f"{method} teaches a new answer and cannot delete one: ROME, EMMET, MEMIT, PMET and "
            "AlphaEdit can"
        )
    return rewrites


def check(model: LabModel, requests: Sequence[Request]) -> None:
    """Refuse requests that cannot be made of this model, before any work.

    Raises:
        AlreadyTrue: If a new object is the old one.
        EmptyTarget: If a target is nothing that the tokenizer knows.
        SubjectNotFound: If a subject's tokens cannot be told apart in its prompt.
        SubjectOnSink: If a subject is the prompt's first token and no more.
    """
    on_sink: list[Request] = []
    for request in requests:
        refuse_no_change(request)
        target = request.target_true if isinstance(request, Deletion) else request.target_new
        target_ids(model.tokenizer, request.prompt, target)
        if model.span(request.prompt, request.subject, at=request.subject_start).last == 0:
            on_sink.append(request)
    if on_sink:
        first = on_sink[0]
        raise SubjectOnSink(
            f"{first.subject!r} is the first token of {first.prompt!r} and nothing more: "
            "the first token of every text shares one state there (an attention sink), and "
            "an edit would hit them all; put words in front of the subject",
            [request.prompt for request in on_sink],
        )


def _object(request: Request) -> tuple[bool, str]:
    """What a request asks for, without spaces at its ends."""
    if isinstance(request, Deletion):
        return False, request.target_true.strip()
    return True, request.target_new.strip()


def refuse_no_change(request: Request) -> None:
    """Raise if a rewrite's new object is its old one.

    Raises:
        AlreadyTrue: If it is: there is nothing to edit.
    """
    if isinstance(request, Deletion) or request.target_true is None:
        return
    if request.target_new.strip() == request.target_true.strip():
        raise AlreadyTrue(
            f"the new object of {request.prompt!r} is its old one, {request.target_true!r}: there "
            "is nothing to edit",
            [request.prompt],
        )


def _wanted(request: Request) -> str:
    """What a request asks for, in words."""
    return "unknown" if isinstance(request, Deletion) else repr(request.target_new)
