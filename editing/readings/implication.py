"""Questions about consequences of a rewrite, and how their answers are scored.

Beside what `editing.readings.asking.Question` has, an answer may have several names, and some
questions ask that an object is *not* said. `editing.readings.consequences` makes and asks them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from editing.readings.asking import Answer, Question


@dataclass(frozen=True, kw_only=True)
class Implication(Question):
    """A question about what follows from a rewrite.

    Attributes:
        accepted: Other names of the wanted object, which count as well.
        rival_names: Other names of the rival.
        denied: Whether the rival must not be said, rather than the wanted object said.
        truth: The question about the truth that this one is the edited counterpart of; None
            where it is the same prompt with wanted and rival exchanged.
    """

    accepted: tuple[str, ...] = ()
    rival_names: tuple[str, ...] = ()
    denied: bool = False
    truth: Question | None = None

    @property
    def right(self) -> tuple[str, ...]:
        """The wanted object under all its names."""
        return tuple(dict.fromkeys((self.wanted, *self.accepted)))

    @property
    def wrong(self) -> tuple[str, ...]:
        """The rival under all its names; empty without one."""
        return () if self.rival is None else tuple(dict.fromkeys((self.rival, *self.rival_names)))


@dataclass(frozen=True, kw_only=True)
class Reply(Answer):
    """A model's answer to an implication; of several names the likeliest counts.

    Attributes:
        question: The implication.
        rival_argmax: Whether the rival is the argmax; None without one.
    """

    question: Implication
    rival_argmax: bool | None

    def passes(self, reading: str) -> bool | None:
        """Whether it passes; after a negation, accuracy and generation are of the rival."""
        if reading == "accuracy" and self.question.denied:
            return None if self.rival_argmax is None else not self.rival_argmax
        if reading == "generation" and self.text is not None:
            names = self.question.wrong if self.question.denied else self.question.right
            return _says(self.text, names) is not self.question.denied
        return super().passes(reading)


def _says(text: str, names: Sequence[str]) -> bool:
    """Whether a text has one of some names as words of its own."""
    return any(
        re.search(rf"(?<!\w){re.escape(name.strip())}(?!\w)", text, flags=re.IGNORECASE)
        for name in names
    )
