"""Training the regression model: minutes on a laptop, fresh prompts at every step.

At every x the model is asked for its y, and the mean squared error over all positions of a batch
of new prompts is the loss: no prompt is ever seen twice, so what is learned is a procedure. The
shipped weights are made by the default recipe:

    python -m labkit.icl.implicit.regression_train OUT

Matrices inside the blocks are trained with Muon and the rest with AdamW, as in
`labkit.pocket.training`; here too it took far fewer steps than AdamW alone.

References:
    Garg et al. (2022), What Can Transformers Learn In-Context?, section 2 and appendix A.

Differs from the paper:
    Smaller in everything (5 dimensions for 20, 6 blocks of width 64 for 12 of width 256, 256
    thousand prompts for 32 millions), noise in y, Muon, and no curriculum.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit.errors import InputError
from labkit.files import atomic_folder, require_free
from labkit.icl.implicit.regression_model import ContextRegressor, Shape
from labkit.icl.implicit.regression_prompts import Setting
from labkit.progress import Progress, listener
from labkit.stats import generator
from labkit.training import Optimiser, rising_then_falling, torch_threads

N_KEPT = 20  # losses that the record keeps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the model is trained.

    Attributes:
        seed: Seed of the initial weights and of all prompts.
        steps: Number of optimiser steps.
        batch: Prompts in a step.
        n_pairs: Pairs of a prompt.
        learning_rate: Muon's, for the matrices inside the blocks, at the peak of the schedule
            (linear warm-up, then cosine down to zero).
        other_rate: AdamW's, for the rest, at the same peak.
        warmup: Steps of the warm-up.
        noise: Standard deviation of the noise of y.
        threads: Threads of torch during training; the weights depend on it.
    """

    seed: int = 0
    steps: int = 4000
    batch: int = 64
    n_pairs: int = 20
    learning_rate: float = 0.01
    other_rate: float = 3e-3
    warmup: int = 100
    noise: float = Setting.noise
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        for name in ("steps", "batch", "n_pairs", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")

    def schedule(self, step: int) -> float:
        """The learning rates of a step, counted from 0, as a share of their peaks."""
        return rising_then_falling(step, steps=self.steps, warmup=self.warmup)


def train(
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    shape: Shape | None = None,
    progress: Progress | None = None,
) -> ContextRegressor:
    """Train a regression model and write it to a new folder.

    Args:
        out: Folder for the weights and `training.json` (shape, recipe, losses, seconds of
            processor time); it may exist if it is empty.
        recipe: How to train; by default the recipe of the weights that ship.
        shape: What to train; by default the shape of the weights that ship.
        progress: Called after every step, with its number and loss in words.

    Returns:
        The model, as `ContextRegressor.load(out)` gives it.

    Raises:
        OutputError: If `out` is not empty or cannot be written.
        NonFiniteLoss: If the loss stops being a number.
    """
    out, recipe = Path(out), recipe or Recipe()
    require_free(out)
    model = ContextRegressor(shape, seed=recipe.seed)
    with atomic_folder(out) as folder, torch_threads(recipe.threads):
        start, losses = time.process_time(), []
        for step, loss in enumerate(steps(model, recipe), start=1):
            losses.append(loss)
            listener(progress)(
                f"step {step} of {recipe.steps}, loss {loss:.3f}", step / recipe.steps
            )
        part = -(-recipe.steps // N_KEPT)
        model.record = {
            "recipe": asdict(recipe),
            "losses": [
                {"step": min(end, recipe.steps), "loss": round(sum(some) / len(some), 5)}
                for end in range(part, recipe.steps + part, part)
                if (some := losses[end - part : end])
            ],
            "cpu_seconds": round(time.process_time() - start),
        }
        model.save(folder)
    return ContextRegressor.load(out)


def steps(model: ContextRegressor, recipe: Recipe) -> Iterator[float]:
    """Train in place, one optimiser step at a time; yield the loss of each.

    Raises:
        NonFiniteLoss: If a loss is not a number.
    """
    optimiser = Optimiser(
        model,
        model.blocks.layers,
        matrix_rate=recipe.learning_rate,
        other_rate=recipe.other_rate,
        schedule=recipe.schedule,
    )
    setting = Setting(d=model.shape.d, noise=recipe.noise)
    draws = generator(recipe.seed, "regression training")
    for step in range(recipe.steps):
        prompts = setting.draw(recipe.batch, recipe.n_pairs, draws)
        loss = (model(prompts.x, prompts.y) - prompts.y).square().mean()
        optimiser.step(loss, step + 1)
        yield loss.item()


def main(out: Path, seed: int = 0) -> None:
    """Train the regression model from scratch, into a new folder."""
    from tqdm import tqdm

    with tqdm(total=Recipe().steps, unit="step") as bar:

        def told(what: str, share: float | None) -> None:
            bar.update()
            bar.set_description(what, refresh=False)

        train(out, recipe=Recipe(seed=seed), progress=told)


if __name__ == "__main__":
    import typer

    typer.run(main)
