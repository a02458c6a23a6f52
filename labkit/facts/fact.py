"""Facts, the rewrites of facts, and the cases on which a rewrite is judged.

A *fact* is (subject, relation prompt, object): "The Eiffel Tower is located in the city of"
-> "Paris". Its prompt is written as a template with one `{}` where the subject stands, so
that its position is known. A *rewrite* is a fact with a new object. A *case* is a rewrite with
the prompts that judge it: paraphrases, which should change, and neighbours, which should not.
"""

from dataclasses import dataclass

from labkit.errors import InputError, SubjectNotFound
from labkit.facts.checks import check_prompts, check_targets, check_templates, require_text
from labkit.tokens import find_subject


def fill(template: str, subject: str) -> str:
    """A template with the subject in place of its `{}`."""
    return template.replace("{}", subject, 1)


@dataclass(frozen=True, kw_only=True)
class Cloze:
    """A prompt about a subject, as a template: what facts and rewrites have in common.

    Attributes:
        subject: Whom or what the prompt is about, as it stands in the prompt.
        template: The prompt with exactly one `{}` for the subject.

    Raises:
        SubjectNotFound: If the subject is empty.
        InputError: If the template does not have exactly one `{}`.
    """

    subject: str
    template: str

    def __post_init__(self) -> None:
        """Refuse a subject or template that makes no prompt."""
        for name in ("subject", "template"):
            require_text(getattr(self, name), name)
        if not self.subject.strip():
            raise SubjectNotFound(
                f"the subject of {self.template!r} is empty: name what it is about"
            )
        check_templates((self.template,))

    @property
    def prompt(self) -> str:
        """The template filled with the subject."""
        return fill(self.template, self.subject)

    @property
    def subject_start(self) -> int:
        """Character offset of the subject in the prompt."""
        return self.template.index("{}")


@dataclass(frozen=True, kw_only=True)
class Fact(Cloze):
    """What a model may know: a subject, a relation prompt and an object.

    Attributes:
        subject: Whom or what the fact is about, as it stands in the prompt.
        template: The relation prompt with exactly one `{}` for the subject; it ends where
            the object would follow.
        object: The answer, or None where it is not known (a fact to be looked up).
        relation: The id of the relation, if the fact belongs to one.
        paraphrases: Other templates that ask for the same object.
        source: Where the fact was taken from.
        aliases: Other right answers, or other names of the object.

    Raises:
        SubjectNotFound: If the subject is empty.
        InputError: If a template does not have exactly one `{}`.
        EmptyTarget: If the object or an alias is an empty text.
    """

    object: str | None
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    source: str | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse empty prompts and answers."""
        super().__post_init__()
        check_templates(self.paraphrases)
        check_targets(self.answers, f"the fact about {self.subject!r}")

    @property
    def answers(self) -> tuple[str, ...]:
        """The object and its aliases: every answer that counts as right."""
        return self.aliases if self.object is None else (self.object, *self.aliases)

    @classmethod
    def from_prompt(cls, prompt: str, subject: str, object: str | None = None) -> "Fact":
        """A fact from a whole prompt: the subject's first occurrence becomes the `{}`.

        Raises:
            SubjectNotFound: If the subject is empty, or no word or phrase of the prompt.
            InputError: If the prompt holds a `{}` of its own.
            EmptyTarget: If the object is an empty text.
        """
        require_text(prompt, "the prompt")
        require_text(subject, "the subject")
        start, stop = find_subject(prompt, subject)
        template = prompt[:start] + "{}" + prompt[stop:]
        return cls(subject=prompt[start:stop], template=template, object=object)


@dataclass(frozen=True, kw_only=True)
class Rewrite(Cloze):
    """A fact with a new object: what an edit should make the model say.

    Attributes:
        subject: Whom or what the rewrite is about.
        template: The relation prompt with exactly one `{}`.
        target_new: The object that the edited model should give.
        target_true: The object that the unedited model gives, or should give.
        relation: The id of the relation, if it belongs to one.

    Raises:
        SubjectNotFound: If the subject is empty.
        InputError: If the template does not have exactly one `{}`.
        EmptyTarget: If a target is an empty text.
    """

    target_new: str
    target_true: str | None = None
    relation: str | None = None

    def __post_init__(self) -> None:
        """Refuse empty targets."""
        super().__post_init__()
        targets = [self.target_new, *([] if self.target_true is None else [self.target_true])]
        check_targets(targets, f"the rewrite of {self.subject!r}")

    @classmethod
    def from_prompt(
        cls, prompt: str, subject: str, target_new: str, target_true: str | None = None
    ) -> "Rewrite":
        """A rewrite from a whole prompt: the subject's first occurrence becomes the `{}`.

            Rewrite.from_prompt("The Louvre is in the city of", "Louvre", "Rome", "Paris")

        Args:
            prompt: The text up to the answer, without a space behind it.
            subject: Whom or what it is about, as it stands there.
            target_new: What the model is to say.
            target_true: What it says, or should say, without the edit.

        Raises:
            SubjectNotFound: If the subject is empty, or no word or phrase of the prompt.
            InputError: If the prompt holds a `{}` of its own.
            EmptyTarget: If a target is an empty text.
        """
        return cls.from_fact(Fact.from_prompt(prompt, subject, target_true), target_new)

    @classmethod
    def from_fact(cls, fact: Fact, target_new: str) -> "Rewrite":
        """The rewrite that gives a fact a new object."""
        return cls(
            subject=fact.subject,
            template=fact.template,
            target_new=target_new,
            target_true=fact.object,
            relation=fact.relation,
        )


@dataclass(frozen=True, kw_only=True)
class Deletion(Cloze):
    """A fact to be forgotten: an edit should make its answer uncertain, not replace it.

    Attributes:
        subject: Whom or what the fact is about.
        template: The relation prompt with exactly one `{}`.
        target_true: The object that the edited model should no longer give.
        relation: The id of the relation, if it belongs to one.

    Raises:
        SubjectNotFound: If the subject is empty.
        InputError: If the template does not have exactly one `{}`.
        EmptyTarget: If the object is an empty text.
    """

    target_true: str
    relation: str | None = None

    def __post_init__(self) -> None:
        """Refuse an empty answer."""
        super().__post_init__()
        check_targets([self.target_true], f"the deletion about {self.subject!r}")


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A prompt that a rewrite should not affect, and the answer it should keep."""

    prompt: str
    object: str

    def __post_init__(self) -> None:
        """Refuse an empty prompt or answer."""
        check_prompts((self.prompt,), "a neighbour")
        check_targets((self.object,), f"the neighbour {self.prompt!r}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rewrite and the prompts that judge it.

    Attributes:
        case_id: A name that is unique in its file.
        rewrite: What is asked of the edit.
        paraphrases: Whole prompts that should give the new object too.
        neighbours: Prompts about other subjects, which should keep their answers.
        attributes: Whole prompts about subjects that have the new object in truth.
        generation: Openings that the edited model is asked to continue freely.

    Raises:
        InputError: If the case has no id.
        EmptyPrompt: If one of the prompts is empty.
    """

    case_id: str
    rewrite: Rewrite
    paraphrases: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    attributes: tuple[str, ...] = ()
    generation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a nameless case and empty prompts."""
        if not self.case_id.strip():
            raise InputError(f"the case about {self.rewrite.subject!r} needs a case_id")
        prompts = (*self.paraphrases, *self.attributes, *self.generation)
        check_prompts(prompts, f"case {self.case_id!r}")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A question that can be asked of many subjects.

    Attributes:
        id: Short name, as in `Fact.relation`.
        description: One line in words.
        templates: Ways to ask, each with one `{}`; the first is the canonical one.
        subject_type: What the subjects are ("landmark"). Relations chain where the object
            type of one is the subject type of another.
        object_type: What the objects are ("city").
        kind: "factual", "linguistic", "commonsense" or "bias".

    Raises:
        InputError: If there is no id or no template, or a template lacks its one `{}`.
    """

    id: str
    description: str
    templates: tuple[str, ...]
    subject_type: str
    object_type: str
    kind: str = "factual"

    def __post_init__(self) -> None:
        """Refuse a relation that cannot be asked."""
        if not self.id.strip() or not self.templates:
            raise InputError(f"a relation needs an id and a template, not {self.id!r}")
        check_templates(self.templates)
