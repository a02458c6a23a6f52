"""What no fact, rewrite or case could be made of, refused."""

from collections.abc import Iterable

from labkit.errors import EmptyPrompt, EmptyTarget, InputError
from labkit.tokens.vocabulary import Token


def check_templates(templates: Iterable[str]) -> None:
    """Raise unless each template has exactly one place for the subject."""
    for template in templates:
        if template.count("{}") != 1:
            raise InputError(
                f"the template {template!r} needs exactly one {{}}, where the subject stands"
            )


def require_text(value: object, what: str) -> None:
    """Raise if something is no text."""
    if not isinstance(value, str):
        raise InputError(f"{what} is text, not a {type(value).__name__}: {value!r:.40}")


def check_targets(targets: Iterable[str], where: str) -> None:
    """Raise if one of the targets has no text."""
    for target in targets:
        require_text(target, f"a target of {where}")
        if not target.strip() and not isinstance(target, Token):
            raise EmptyTarget(f"a target of {where} is empty: name what the model should say")


def check_prompts(prompts: Iterable[str], where: str) -> None:
    """Raise if one of the prompts has no text."""
    for prompt in prompts:
        if not prompt.strip():
            raise EmptyPrompt(f"a prompt of {where} is empty: give it at least one word")
