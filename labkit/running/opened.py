"""Refuse arguments of another kind with a named error, before any other check."""

from labkit.errors import InputError


def require_opened(model: object) -> None:
    """Refuse what was never opened: a name, a folder, a plain Hugging Face model.

    Raises:
        InputError: With how a model is opened.
    """
    if not hasattr(model, "tokenizer"):
        shown = f"the text {model!r:.60}" if isinstance(model, str) else f"a {type(model).__name__}"
        raise InputError(
            f"a model comes first, opened by labkit.load('pocket') or another name, not {shown}"
        )


def require_options(how: object, kind: type) -> None:
    """Refuse anything but a configuration of its kind: a single option, its class, a mapping.

    Raises:
        InputError: With how the configuration is written.
    """
    if not isinstance(how, kind):
        name = kind.__name__
        shown = f"the text {how!r:.60}" if isinstance(how, str) else f"a {type(how).__name__}"
        if isinstance(how, type):
            shown = f"the class {how.__name__}, without brackets"
        raise InputError(f"how it is done is said by {name}(option=value, ...), not by {shown}")


def require_prompt(model: object, prompt: object) -> None:
    """Refuse what is no opened model, and what is not one prompt.

    Raises:
        InputError: With what to write instead.
    """
    require_opened(model)
    if not isinstance(prompt, str):
        raise InputError(f"one prompt, as text, not {type(prompt).__name__}: one call for each")
