r"""Text for statistics: from a file, from a list, or sampled from the model itself.

A corpus sampled from the model has the distribution that the model puts on text, which is
what an editor's covariance is about, and it needs no download. One sampled from
`smollm2-135m` ships with the package; made with

    python -m labkit.text.corpus smollm2-135m --documents 192 \
        --out labkit/data/corpus_smollm2.txt.gz
"""

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from labkit import stats
from labkit.arguments import checked
from labkit.errors import EmptyPrompt, MissingFile
from labkit.facts.fact import fill
from labkit.facts.worlds import world_of
from labkit.models.model import LabModel
from labkit.progress import Progress, part_of
from labkit.tokens.words import mostly_latin, n_words, sentences_of

SEPARATOR = "\x1e\n"
"""Between documents of a corpus file: ASCII's record separator, alone on its line."""

BUNDLED = {"smollm2-135m": "corpus_smollm2.txt.gz"}
"""Corpora that ship with the package, by the short name of the model they came from."""

DOCUMENT_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Some documents, and where they come from.

    Attributes:
        documents: The texts.
        source: One line for people and for the provenance of what is computed from it.
    """

    documents: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        """Refuse a corpus with nothing in it."""
        if not any(document.strip() for document in self.documents):
            raise EmptyPrompt(f"the corpus ({self.source}) holds no text")

    @property
    def digest(self) -> str:
        """sha256 of the documents, 64 hex digits."""
        return hashlib.sha256("\0".join(self.documents).encode()).hexdigest()

    @classmethod
    def from_file(cls, path: str | Path) -> "Corpus":
        """A text file, plain or gzipped; documents are separated by a record separator line.

        Raises:
            MissingFile: If it cannot be read as UTF-8 text.
        """
        try:
            data = Path(path).read_bytes()
            text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise MissingFile(f"cannot read {path} as a text file: {error}") from error
        return cls(documents=split(text), source=f"file {Path(path).name}")

    def sentences(self, *, max_words: int) -> list[str]:
        """Sentences of 3 to so many words, in order, each once, in whatever script.

        A sentence begins with a capital, or with any letter in scripts without them. Where
        most letters are Latin it begins with A to Z: what else occurs there is noise.
        """
        latin = mostly_latin(self.documents)
        found = (
            sentence
            for document in self.documents
            for sentence in sentences_of(document, latin=latin)
        )
        return list(dict.fromkeys(s for s in found if 2 < n_words(s) <= max_words))


def split(text: str) -> tuple[str, ...]:
    """The documents of a corpus file."""
    return tuple(part.strip("\n") for part in text.split(SEPARATOR) if part.strip())


@checked
def corpus_of(model: LabModel, *, progress: Progress | None = None) -> Corpus:
    """The corpus that stands for a model's own distribution of text.

    The sentences that its world consists of, or what ships for the registered model that its
    weights are or come from; else a sample is drawn, enough for the default second moments.
    """
    world = world_of(model)
    if world.sentences is not None:
        return Corpus(documents=world.sentences, source=f"the {world.name} world's sentences")
    if model.known_as in BUNDLED:
        data = resources.files("labkit.data").joinpath(BUNDLED[model.known_as]).read_bytes()
        text = gzip.decompress(data).decode("utf-8")
        return Corpus(documents=split(text), source=f"sampled from {model.known_as}, bundled")
    n_documents = -(-10 * model.d_mlp // DOCUMENT_TOKENS) + 1
    return sample(model, n_documents, progress=progress)


@checked
def fact_prompts(model: LabModel, *, seed: int = 0) -> Corpus | None:
    """Prompts that ask for facts: every fact of the model's world once, order and template drawn.

    Where facts are read, keys differ from those of running text. None where the world's own
    sentences are the corpus: they state its facts.

    Args:
        model: The model.
        seed: Seed of the draw.
    """
    world = world_of(model)
    if world.sentences is not None:
        return None
    facts = world.facts
    draw = stats.generator(seed, "fact prompts")
    prompts = []
    for number in torch.randperm(len(facts), generator=draw).tolist():
        templates = (facts[number].template, *facts[number].paraphrases)
        chosen = int(torch.randint(len(templates), (1,), generator=draw))
        prompts.append(fill(templates[chosen], facts[number].subject))
    return Corpus(
        documents=tuple(prompts), source=f"prompts of the facts of the {world.name} world"
    )


@checked
def held_out(model: LabModel) -> tuple[str, ...]:
    """Text for perplexity that is in no corpus or training set of this project."""
    return world_of(model).held_out


@torch.no_grad()
def sample(
    model: LabModel,
    n_documents: int,
    *,
    n_tokens: int = DOCUMENT_TOKENS,
    batch: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Corpus:
    """Draw documents from the model, at temperature 1, from its document separator on.

    Args:
        model: The model.
        n_documents: How many documents.
        n_tokens: Tokens of each at most; a document ends where the model ends it.
        batch: Documents drawn together.
        seed: Seed of the draw; each document has its own generator.
        progress: Called after every token of every batch.
    """
    documents: list[str] = []
    for first in range(0, n_documents, batch):
        numbers = range(first, min(first + batch, n_documents))

        told = part_of(progress, first / n_documents, len(numbers) / n_documents)
        documents += _draw(model, numbers, n_tokens, seed, told)
    return Corpus(
        documents=tuple(document for document in documents if document.strip()),
        source=f"{n_documents} documents sampled from {model.name} (seed {seed})",
    )


def _draw(
    model: LabModel, numbers: Sequence[int], n_tokens: int, seed: int, told: Progress
) -> list[str]:
    """Draw some documents together, token by token."""
    draws = [stats.generator(seed, "document", number) for number in numbers]
    separator = _separator(model)
    tokens = torch.full((len(numbers), 1), separator, device=model.device)
    ended = torch.zeros(len(numbers), dtype=torch.bool)
    kept: list[list[int]] = [[] for _ in numbers]
    cache = None
    for step in range(n_tokens):
        out = model.hf(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        probability = out.logits[:, -1].float().softmax(dim=-1).cpu()
        drawn = torch.cat(
            [torch.multinomial(p, 1, generator=g) for p, g in zip(probability, draws, strict=True)]
        )
        ended |= _is_end(model, drawn)
        for row, token in enumerate(drawn.tolist()):
            if not ended[row]:
                kept[row].append(token)
        told("sampling text from the model", (step + 1) / n_tokens)
        if bool(ended.all()):
            break
        tokens = drawn[:, None].to(model.device)
    return model.tokenizer.batch_decode(kept, skip_special_tokens=True)


def _separator(model: LabModel) -> int:
    """The token that stands between documents in pre-training.

    `<|endoftext|>` where there is one: instruction-tuned models reuse BOS for chat turns.
    """
    known = model.tokenizer.get_vocab()
    for candidate in ("<|endoftext|>", model.tokenizer.bos_token, model.tokenizer.eos_token):
        if candidate in known:
            return known[candidate]
    return 0


def _is_end(model: LabModel, drawn: Tensor) -> Tensor:
    """Which of the drawn tokens end a document."""
    return torch.isin(drawn, torch.tensor(model.tokenizer.all_special_ids, dtype=drawn.dtype))


def _main() -> None:
    """Sample a corpus to a gzipped file; see the module's docstring."""
    import argparse

    from tqdm import tqdm

    from labkit.models.loading import load
    from labkit.results.result import atomic_write

    parser = argparse.ArgumentParser(description="Sample a corpus from a model.")
    parser.add_argument("model")
    parser.add_argument("--documents", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    with tqdm(total=1.0, bar_format="{desc}: {percentage:3.0f}% {elapsed}") as bar:

        def show(stage: str, share: float | None) -> None:
            bar.set_description(stage)
            bar.update((share or 0.0) - bar.n)

        corpus = sample(load(options.model), options.documents, seed=options.seed, progress=show)
    text = SEPARATOR.join(f"{document}\n" for document in corpus.documents)
    atomic_write(options.out, gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    _main()
