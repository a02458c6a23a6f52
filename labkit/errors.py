"""Named errors: each says what was wrong, where, and what to do.

Every error that a user can cause is a subclass of `LabkitError`, is raised before any
work starts, and leaves the model, the cache and the output folder as they were. The
command line turns a `LabkitError` into one line and exit status 1; anything else is a bug, and
its traceback goes into a file (`labkit.cli.ending`).
"""

from collections.abc import Iterable


class LabkitError(Exception):
    """Base class of every error that a user of the lab can cause and mend."""


class UnknownModel(LabkitError):
    """A model name that is no folder, no registered short name and no hub id."""


class FetchError(LabkitError):
    """Weights could not be brought here: no network, no such file, interrupted."""


class ChecksumMismatch(FetchError):
    """A fetched file is not the one that was registered; it has been removed."""


class SelfCheckFailed(LabkitError):
    """A loaded model broke one of the laws that the lab's numbers rest on."""


INSTEAD = (
    "What the lab measures rests on it, so the model is not opened; plain transformers and hooks "
    "of your own still work on it. Models whose blocks add attention and one FFN to the residual "
    "stream do open: Llama, Mistral, Qwen, Gemma, GPT-2, Pythia, GPT-J, Phi, OLMo, Falcon-7B, "
    "BLOOM, MPT, OPT and others"
)
"""What a person can do about a model that fails the self-check."""


class NotDecomposable(LabkitError):
    """A model's logit is not the sum of what its parts write, so no part can be given a share."""


class FingerprintMismatch(LabkitError):
    """An artefact made with one model was handed to another."""


class InputError(LabkitError):
    """An argument is out of its range or does not fit the others."""


class WrongArgument(InputError):
    """An argument of another kind than a function takes, in another order, or left out."""


class MalformedModel(InputError):
    """A folder of a model that cannot be opened, or whose files contradict each other."""


class ForeignCode(MalformedModel):
    """A model that only opens by running Python code that it brings along, which is not done."""


class LayerOutOfRange(InputError):
    """A layer index that the model does not have."""


class NeuronOutOfRange(InputError):
    """An FFN neuron that the model's blocks do not have."""


class NotOneToken(InputError):
    """A text that the tokenizer cuts into several tokens, where one token was asked for."""


class EmptyPrompt(InputError):
    """A prompt with no text, or with no token."""


class EmptyTarget(InputError):
    """A target that is empty or tokenises to nothing."""


class SubjectNotFound(InputError):
    """The subject does not occur in the prompt."""


class NothingToTrace(InputError):
    """A prompt of one token, or of the subject alone: nothing lies between it and an answer."""


class DuplicateSubject(InputError):
    """Several rewrites share one subject, hence one key, where one was expected."""


class ContradictoryRewrites(InputError):
    """One prompt is asked to have two different answers."""


class CannotEdit(InputError):
    """Some of several rewrites cannot be made; the others could be without them.

    Attributes:
        prompts: The prompts of those that cannot be made.
    """

    def __init__(self, message: str, prompts: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.prompts = tuple(prompts)


class AlreadyTrue(CannotEdit):
    """A rewrite asks for what the model says already: there is nothing to edit."""


class SubjectOnSink(CannotEdit):
    """A subject that is nothing but a text's first token, whose state all texts share."""


class MalformedRecord(InputError):
    """A record of a data file does not have the fields that its format promises."""


class UnknownAssignment(InputError):
    """An assignment of the course that there is none of, or no course where it is looked for."""


class MalformedAssignment(InputError):
    """A source of an assignment that does not say what its exercises are."""


class NoSubmissions(InputError):
    """A folder to be graded without a notebook of the course in it."""


class CheckFailed(LabkitError):
    """An answer to an exercise that breaks a law; the message says what kind of mistake it is."""


class MissingFile(InputError):
    """A file or folder that was named does not exist or cannot be read."""


class OneClass(InputError):
    """Labels that are all alike: there is nothing for a probe to tell apart."""


class ClassTooSmall(InputError):
    """A class with too few examples to be learned and scored."""


class EmptySplit(InputError):
    """A side of a split, or a whole task, without examples."""


class LeakingSplit(InputError):
    """A group (a subject, a sentence) that stands on both sides of a split."""


class NotAligned(InputError):
    """Words that no tokens of a model's own can be told to belong to."""


class PoolTooSmall(InputError):
    """More demonstrations or queries than a task has items."""


class ContextTooShort(InputError):
    """A prompt of more tokens than the model was made to read."""


class AmbiguousLabels(InputError):
    """Two labels that a score cannot tell apart: their tokens, or those scored, are the same."""


class TooLarge(InputError):
    """What is asked for would take more memory than the machine has, or more time than anybody."""


class OutputError(LabkitError):
    """The output could not be written; nothing was left half-written."""


class NonFiniteLoss(LabkitError):
    """An optimisation met a loss that is not a number; the model is untouched."""


class SingularSystem(LabkitError):
    """A closed form has no answer: keys that coincide, or a second moment of too little text."""


def one_line(what: object, longest: int = 240) -> str:
    """What an error or a value says, in one line of bounded length."""
    text = " ".join(str(what).split())
    if isinstance(what, BaseException):
        text = f"{type(what).__name__}: {text}" if text else type(what).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."
