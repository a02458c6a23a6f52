"""Instruction against demonstrations: the same queries told what to do, shown it, or both.

    result = Instructions(k=8)(model, task)
    result.to_frame(), result.comparisons(), result.candidate_frame(), result.figure()

    neither           the query alone
    instruction       a written instruction in front
    demonstrations    k demonstrations in front
    both              the instruction, then the demonstrations
    another's         the instruction of another task: the control of `instruction`
    proposed          the best of the instructions that the model itself proposes
    any proposed      the mean over all that it proposes: the control of `proposed`

To propose one, the model continues a text that says that a friend was given an instruction, shows
the friend's answers (k demonstrations), and ends where the instruction would follow. Continuations
are drawn with a seed; each candidate is scored on development items; the best is reported on the
queries, which no candidate has seen.

References:
    Zhou et al. (2023), Large Language Models Are Human-Level Prompt Engineers, sections 3.1
    (forward proposal) and 3.2 (execution accuracy, log-probability).

Differs from the paper:
    One model proposes and executes. Candidates come from one round of sampling, without the
    paraphrases of its iterative search, and all are scored on all development items.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from labkit.arguments import checked
from labkit.errors import ContextTooShort, InputError
from labkit.icl.asking.queries import Front, ask, prepare, require_settings
from labkit.icl.asking.scoring import Tokens
from labkit.icl.asking.task_result import about_queries
from labkit.icl.behaviour.instructions_result import InstructionsResult
from labkit.icl.tasks.items import Item, Task
from labkit.icl.tasks.own import task as own_task
from labkit.icl.tasks.own import task_names
from labkit.models.model import LabModel
from labkit.progress import Progress, listener
from labkit.stats import generator, numpy_generator

ARMS = ("neither", "instruction", "demonstrations", "both", "another's")
"""What stands in front of a query, short of what the model proposes."""

ASKED = (
    "I gave a friend an instruction. My friend followed it, and these are the answers:",
    'The instruction that I gave was: "',
)
"""What stands around demonstrations where an instruction is asked for."""

N_TOKENS = 24
"""Length of a proposed instruction at most, in tokens."""


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """Scores of every label after instructions, demonstrations, both and neither.

    Attributes:
        k: Number of demonstrations, also of those that an instruction is proposed from.
        draws: How many sets of demonstrations are drawn; each goes with one of the task's
            instructions, in turn, and with one of another task.
        queries: How many items are asked about; all that can be spared if there are fewer.
        development: How many other items candidates are scored on.
        proposals: How many continuations are drawn from the model, over all sets; 0 for none.
        temperature: Of the draws; Zhou et al. use 0.9.
        tokens: Whether all tokens of a label are scored, or its first alone.
        seed: Seed of every draw.

    Raises:
        InputError: If a field is out of its range.

    Shows:
        What the same queries gain from being told, shown, or both, against another task's
        instruction.

    Does not show:
        That an instruction was *understood*. It names labels or a kind of label, which alone can
        raise their probability.
    """

    k: int = 8
    draws: int = 4
    queries: int = 40
    development: int = 16
    proposals: int = 24
    temperature: float = 0.9
    tokens: Tokens = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        require_settings(
            tokens=self.tokens, ks=(self.k,), least=1, draws=self.draws, queries=self.queries,
            development=self.development,
        )  # fmt: skip
        if self.proposals < 0 or not self.temperature > 0:
            raise InputError(
                f"{self.proposals} proposals at temperature {self.temperature}: at least none, "
                "at a temperature above 0"
            )

    @checked
    def __call__(
        self, model: LabModel, task: Task, *, progress: Progress | None = None
    ) -> InstructionsResult:
        """Ask the queries of a task in every way.

        Args:
            model: The model.
            task: The task; its `instructions` are the written ones.
            progress: Called as prompts are scored.

        Raises:
            InputError: If the task has no instruction.
            PoolTooSmall: If there are too few items for demonstrations, development and a query.
            EmptyTarget: If a label tokenises to nothing.
            AmbiguousLabels: If two labels cannot be told apart by the tokens scored.
            ContextTooShort: If the demonstrations with an instruction and a query, or with the
                instruction that is to be proposed, are too long.
        """
        if not task.instructions:
            raise InputError(
                f"{task.name!r} has no instruction: write one, replace(task, instructions=(...,))"
            )
        queries, pool = task.queries_and_pool(
            self.queries, self.development + self.k, seed=self.seed
        )
        development, pool = pool[: self.development], pool[self.development :]
        texts = [item.input for item in queries]
        sets = [
            [pool[number] for number in self._draw(task, draw).permutation(len(pool))[: self.k]]
            for draw in range(self.draws)
        ]
        written = [task.instructions[draw % len(task.instructions)] for draw in range(self.draws)]
        others = self.foreign(model, task)
        fronts = self._fronts(sets, written, others)
        asked = dict.fromkeys((front for row in fronts for front in row), texts)
        prepare(model, task, asked, tokens=self.tokens)
        candidates = self.proposed(model, task, sets, progress=progress)
        own = [Front(instruction=candidate) for candidate in candidates]
        every = [*texts, *(item.input for item in development)]
        tables = ask(
            model, task, asked | dict.fromkeys(own, every), tokens=self.tokens, progress=progress
        )
        shape = (len(candidates), len(every), len(task.labels))
        of_candidates = np.array([tables[front] for front in own], dtype=np.float32).reshape(shape)
        scores = [np.stack([tables[f][: len(queries)] for f in row]) for row in fronts]
        return InstructionsResult(
            **about_queries(model, task, queries),
            labels=task.labels,
            development_gold=tuple(item.label for item in development),
            k=self.k,
            tokens=self.tokens,
            seed=self.seed,
            written=tuple(written),
            others=tuple(others),
            arms=ARMS,
            log_probs=np.stack(scores).astype(np.float32),
            candidates=tuple(candidates),
            candidate_log_probs=of_candidates[:, : len(queries)],
            development_log_probs=of_candidates[:, len(queries) :],
        )

    def proposed(
        self,
        model: LabModel,
        task: Task,
        sets: Sequence[Sequence[Item]],
        *,
        progress: Progress | None = None,
    ) -> list[str]:
        """The instructions that the model proposes for some sets of items, each once.

        Raises:
            ContextTooShort: If a set with an instruction is too long.
        """
        if not self.proposals:
            return []
        prompts = [_question(task, items) for items in sets]
        longest = max(len(model.ids(prompt)) for prompt in prompts) + N_TOKENS
        if model.n_ctx is not None and longest > model.n_ctx:
            raise ContextTooShort(
                f"{self.k} demonstrations and the instruction take {longest} tokens, "
                f"{model.name} reads {model.n_ctx}: show fewer demonstrations, or shorter ones"
            )
        found: dict[str, str] = {}
        for number, prompt in enumerate(prompts):
            share = range(number, self.proposals, len(prompts))
            listener(progress)("the model proposes instructions", number / len(prompts))
            if share:
                seed = generator(self.seed, "icl propose", task.name, number).initial_seed()
                for text in _continued(model, prompt, len(share), self.temperature, seed):
                    said = instruction_in(text)
                    if said:
                        found.setdefault(said.casefold(), said)
        return list(found.values())

    def foreign(self, model: LabModel, task: Task) -> list[str]:
        """An instruction of another of the lab's tasks for every draw, none of them twice."""
        names = [name for name in task_names(model) if name != task.name]
        order = numpy_generator(self.seed, "icl others", task.name).permutation(len(names))
        every = (own_task(names[number], model) for number in order)
        others = (own for own in every if own.items != task.items)
        written = [own.instructions[0] for own in islice(others, self.draws)]
        return [written[draw % len(written)] for draw in range(self.draws)]

    def _fronts(
        self, sets: Sequence[Sequence[Item]], written: Sequence[str], others: Sequence[str]
    ) -> list[list[Front]]:
        """By arm and draw: what precedes a query."""
        return [
            [Front(instruction="")] * self.draws,
            [Front(instruction=said) for said in written],
            [Front.of(items, instruction="") for items in sets],
            [Front.of(items, instruction=said) for items, said in zip(sets, written, strict=True)],
            [Front(instruction=said) for said in others],
        ]

    def _draw(self, task: Task, draw: int) -> np.random.Generator:
        """The generator of one set of demonstrations."""
        return numpy_generator(self.seed, "icl instructions", task.name, draw)


def instruction_in(text: str) -> str:
    """The instruction at the beginning of a continuation; empty if there is none.

    From the first letter up to the closing quotation mark, the end of the line or of the sentence.
    """
    begun = re.sub(r"^[\W_]+", "", text)
    said = re.split(r"[\"”\n]|(?<=[.!?])\s", begun)[0].strip()
    return said if re.search(r"[^\W\d_]{2}", said) else ""


def _question(task: Task, items: Sequence[Item]) -> str:
    """The text that an instruction would follow."""
    shown = Front.of(items, instruction=ASKED[0]).before(task, "")
    return shown.removesuffix(task.template.query.replace("{input}", "")) + ASKED[1]


@torch.no_grad()
def _continued(model: LabModel, prompt: str, n: int, temperature: float, seed: int) -> list[str]:
    """So many continuations of a prompt, drawn from the model."""
    batch = model.tokens([prompt])
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # transformers draws from the global generator
        torch.manual_seed(seed)
        out = model.hf.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            max_new_tokens=N_TOKENS,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=n,
            pad_token_id=model.pad_id,
        )
    return model.tokenizer.batch_decode(out[:, batch.shape[1] :], skip_special_tokens=True)
