"""Public tasks by name, on the model as it is now: a thin wrapper of lm-eval.

    before = public_tasks(model, ["lambada_openai", "piqa"], limit=200)
    with in_effect(model, delta):
        after = public_tasks(model, ["lambada_openai", "piqa"], limit=200)

The model's own tokenizer is handed over, with its own rule about a BOS: numbers flip with
either. lm-eval is an optional extra, `pip install 'labkit[lm-eval]'`. It fetches a task's data
from the Hugging Face hub; a task of one's own is a dict or a YAML file as in its handbook.

What this does not show: a text edit. lm-eval writes its own prompts, and nothing is put in
front of them.

References:
    Gao et al. (2024), The Language Model Evaluation Harness.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats as scipy_stats

from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.stats import Estimate


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicTasks(Measured):
    """A model's scores on some tasks.

    Attributes:
        table: One row per task and metric: `task, metric, mean, low, high, n`, intervals over
            examples.
        version: Version of lm-eval.
    """

    table: pd.DataFrame
    version: str

    @property
    def title(self) -> str:
        """The tasks, in one line."""
        tasks = ", ".join(dict.fromkeys(self.table["task"]))
        return f"{tasks} with {self.model}, lm-eval {self.version}"

    def to_frame(self) -> pd.DataFrame:
        """The table; see the class."""
        return self.table

    def figure(self) -> Any:
        """Every metric with its interval, one panel per metric."""
        from labkit.plots import metrics_bars

        named = self.table.rename(columns={"metric": "reading", "task": "metric"})
        return metrics_bars(named.assign(state=self.model), title=self.title)


@contextmanager
def _generators_left_alone() -> Iterator[None]:
    """lm-eval seeds the global generators; their states are restored afterwards."""
    python, torch_ = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - it is the global one that lm-eval seeds
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_)


@checked
@_generators_left_alone()
def public_tasks(
    model: LabModel,
    tasks: Sequence[str | Mapping[str, Any]],
    *,
    limit: int | None = None,
    n_shots: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> PublicTasks:
    """Run named tasks of lm-eval, on whatever weights the model has now.

    Args:
        model: The model, edited or not.
        tasks: Names of lm-eval's tasks, or tasks written out as dicts.
        limit: Only so many examples of each.
        n_shots: Examples in front of each question; by default what the task says.
        batch_size: Examples run together.
        seed: Seed of the draw of examples, and of the intervals.

    Raises:
        InputError: If lm-eval is not installed, there is no task, or lm-eval does not know it.
    """
    if not tasks:
        raise InputError("there is no task to run: name one of lm-eval's, such as 'piqa'")
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(
            "public tasks need the lm-eval extra: pip install 'labkit[lm-eval]'"
        ) from error
    known = TaskManager()
    missing = [task for task in tasks if isinstance(task, str) and task not in known.all_tasks]
    if missing:
        raise InputError(f"lm-eval {lm_eval.__version__} has no task {', '.join(missing)}")
    wrapped = HFLM(
        pretrained=model.hf,
        tokenizer=model.tokenizer,
        backend="causal",
        add_bos_token=model.prepend_bos,
        batch_size=batch_size,
    )
    found = lm_eval.simple_evaluate(
        wrapped,
        tasks=[task if isinstance(task, str) else dict(task) for task in tasks],
        num_fewshot=n_shots,
        limit=limit,
        task_manager=known,
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    rows = [
        {"task": task, "metric": metric, **estimate.to_dict()}
        for task, metric, estimate in _estimates(found)
    ]
    return PublicTasks(
        table=pd.DataFrame(rows, columns=["task", "metric", "mean", "low", "high", "n"]),
        version=lm_eval.__version__,
        **measured_on(model),
    )


def _estimates(found: Mapping[str, Any]) -> list[tuple[str, str, Estimate]]:
    """Each task's metrics; those that come with no interval at all are left out.

    A metric that is a mean over examples gets the interval over these (Wilson's where they
    are all 0 or 1), any other Student's t of lm-eval's own standard error.
    """
    estimates = []
    for task, values in found["results"].items():
        samples = found.get("samples", {}).get(task, [])
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            own = [s[metric] for s in samples if s.get("filter", filtered) == filtered
                   and isinstance(s.get(metric), int | float)]  # fmt: skip
            error = values.get(f"{metric}_stderr,{filtered}")
            if own and abs(sum(own) / len(own) - value) < 1e-6:
                estimates.append((task, metric, _over_examples(own)))
            elif isinstance(error, int | float):
                estimates.append((task, metric, _of_error(value, error, len(samples))))
    return estimates


def _over_examples(values: Sequence[float]) -> Estimate:
    """Mean over examples: a share where all of them are 0 or 1."""
    return stats.share(values) if set(values) <= {0, 1} else stats.average(values)


def _of_error(value: float, error: float, n: int) -> Estimate:
    """A metric with Student's t interval of its standard error; none if that is 0."""
    if n < 2 or not error > 0:
        return Estimate.exact(value, n)
    reach = float(scipy_stats.t.ppf(0.5 + stats.CONFIDENCE / 2, n - 1)) * error
    return Estimate(value, value - reach, value + reach, n)
