"""Switch named neurons off or on at the last position, and measure the change of the answer.

Three numbers for the same neurons, in logits of the answer:

- predicted: from their shares, `(factor - 1) * sum of shares`;
- direct: measured on the path to the logit alone. The neurons' activations are multiplied
  by `factor`, the FFN writes what it then writes, nothing after it reads that, and norms
  keep their scale. Equals the prediction up to rounding;
- total: measured by a real rerun from the changed block on, everything after it recomputed,
  norms included. Where it differs from the direct effect, later blocks had read what the
  neurons wrote, or the scale of a norm followed.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from labkit.arguments import checked
from labkit.errors import FingerprintMismatch, InputError
from labkit.memories.composition import Contributions, Neuron
from labkit.memories.reading import Reading, read_last
from labkit.memories.values import require_neuron
from labkit.models.anatomy import Site
from labkit.models.model import LabModel
from labkit.results.measured import Measured, measured_on
from labkit.running.activations import patched
from labkit.running.execute import Execution, freeze, repeat_rows
from labkit.stats import Estimate, average, numpy_generator
from labkit.tokens import TokenBatch


@dataclass(frozen=True, kw_only=True, eq=False)
class Switch(Measured):
    """What switching some neurons does to the logit of an answer.

    Attributes:
        prompt: The prompt.
        answer: The token whose logit is read.
        neurons: The neurons, as (layer, neuron).
        factor: What their activations were multiplied by: 0 is off, 2 is doubled.
        logit: The logit with nothing switched.
        predicted: Change that the shares predict.
        direct: Change on the path to the logit alone, norms held: measured.
        total: Change in a real rerun: measured.
        control_direct: `direct` of random neurons, as many of each layer, by draw.
        control_total: `total` of the same draws.
        seed: Seed of the draws.
    """

    prompt: str
    answer: str
    neurons: tuple[Neuron, ...]
    factor: float
    logit: float
    predicted: float
    direct: float
    total: float
    control_direct: Float[np.ndarray, " draw"]
    control_total: Float[np.ndarray, " draw"]
    seed: int

    @property
    def title(self) -> str:
        """How many neurons, and what they did."""
        how = "off" if self.factor == 0 else f"x {self.factor:g}"
        return (
            f"{len(self.neurons)} neurons {how}: logit of {self.answer.strip()!r} "
            f"{self.logit:.2f}, directly {self.direct:+.2f}, in all {self.total:+.2f}"
        )

    @property
    def control(self) -> tuple[Estimate, Estimate]:
        """Direct and total change of as many random neurons, intervals over draws."""
        return (
            average(self.control_direct),
            average(self.control_total),
        )

    def to_frame(self) -> pd.DataFrame:
        """Rows: effect, neurons, mean, low, high, n; the change of the logit.

        The named neurons' own effects are exact for this prompt: they have no interval (NaN).
        """
        direct, total = self.control
        point = [
            (effect, "named", Estimate.exact(value))
            for effect, value in (
                ("predicted", self.predicted),
                ("direct", self.direct),
                ("total", self.total),
            )
        ]
        rows = [*point, ("direct", "random", direct), ("total", "random", total)]
        return pd.DataFrame(
            [{"effect": effect, "neurons": which, **e.to_dict()} for effect, which, e in rows]
        )

    def figure(self) -> Any:
        """Predicted, direct and total change beside those of random neurons."""
        from labkit.plots import switch_bars

        return switch_bars(self.to_frame(), title=self.title)


@checked
@torch.no_grad()
def switched(
    model: LabModel,
    found: Contributions,
    neurons: Iterable[Neuron] | None = None,
    *,
    factor: float = 0.0,
    draws: int = 20,
    seed: int = 0,
) -> Switch:
    """Switch neurons off (`factor` 0) or on (2 doubles them) and measure what is lost.

        switched(model, contributions(model, prompt)).figure()

    Args:
        model: The model; it is not changed.
        found: Shares of a prompt and its answer, from `contributions`.
        neurons: Which neurons; by default those that give half of what all neurons
            together add (`found.covering()`).
        factor: What their activations are multiplied by.
        draws: Number of random sets, of as many neurons of each layer, none of them named.
            Where a layer has too few others, all of those.
        seed: Seed of the random sets.

    Raises:
        FingerprintMismatch: If the shares are those of another model.
        InputError: If there are no neurons (none by default where all neurons together lower
            the logit), or no draws.
        LayerOutOfRange, NeuronOutOfRange: For a neuron that the model does not have.

    Shows:
        Whether neurons do what their shares predict, and what the rest of the model makes of
        their absence.

    Does not show:
        What they do at earlier positions, which are left alone.
    """
    if not model.is_own(found.fingerprint):
        raise FingerprintMismatch(f"these contributions are of {found.model}, not {model.name}")
    named = tuple(dict.fromkeys(found.covering() if neurons is None else neurons))
    if not named or draws < 1:
        raise InputError(
            "nothing to switch: draw at least once, and name at least one neuron (by default "
            "none is chosen where all neurons together lower the logit)"
        )
    for layer, neuron in named:
        require_neuron(model, model.layer(layer), neuron)

    sets = [named, *_random_sets(model, named, draws, seed)]
    scale = torch.ones(len(sets), model.n_layers, model.d_mlp, dtype=model.dtype)
    for row, chosen in enumerate(sets):
        layers, numbers = zip(*chosen, strict=True) if chosen else ((), ())
        scale[row, list(layers), list(numbers)] = factor
    scale = scale.to(model.device)
    used = sorted({layer for layer, _ in named})
    batch = model.tokens([found.prompt])
    direct = _direct(model, read_last(model, batch), scale, used, found.answer_id)
    total = _total(model, batch, scale, used, found.answer_id)
    layers, numbers = zip(*named, strict=True)
    return Switch(
        prompt=found.prompt,
        answer=found.answer,
        neurons=named,
        factor=factor,
        logit=found.logit,
        predicted=(factor - 1) * float(found.neurons[list(layers), list(numbers)].sum()),
        direct=float(direct[0]),
        total=float(total[0]),
        control_direct=direct[1:],
        control_total=total[1:],
        seed=seed,
        **measured_on(model),
    )


def _random_sets(
    model: LabModel, named: tuple[Neuron, ...], draws: int, seed: int
) -> list[tuple[Neuron, ...]]:
    """As many neurons of each layer as are named there, none of them named."""
    sizes = Counter(layer for layer, _ in named)
    others = {
        layer: np.setdiff1d(np.arange(model.d_mlp), [n for at, n in named if at == layer])
        for layer in sizes
    }
    draw = numpy_generator(seed, "switch", named)
    return [
        tuple(
            (layer, int(neuron))
            for layer, size in sizes.items()
            for neuron in draw.choice(
                others[layer], min(size, len(others[layer])), replace=False, shuffle=False
            )
        )
        for _ in range(draws)
    ]


def _direct(
    model: LabModel,
    reading: Reading,
    scale: Float[Tensor, "row layer d_mlp"],
    layers: list[int],
    token: int,
) -> Float[np.ndarray, " row"]:
    """Change of the logit if only the final norm, at its scale, reads what the FFNs write."""
    changed = torch.zeros(len(scale), model.d_model, dtype=torch.float64)
    for layer in layers:
        proj, key = model.ffn_proj(layer), reading.keys[layer]
        written = (proj(key * scale[:, layer]) - proj(key)).double().cpu()
        post = reading.ffn_post[layer]
        changed += written if post is None else post.linear(written)
    change = reading.final.linear(changed) @ model.unembed.weight[token].double().cpu()
    return change.numpy()


def _total(
    model: LabModel,
    batch: TokenBatch,
    scale: Float[Tensor, "row layer d_mlp"],
    layers: list[int],
    token: int,
) -> Float[np.ndarray, " row"]:
    """Change of the logit in a real run, after a frozen prefix of the earlier positions."""
    length = batch.shape[1]
    untouched = torch.ones_like(scale[:1])
    scale = torch.cat([untouched, scale])
    prefix = freeze(model, batch, length=length - 1) if length > 1 else None
    run = Execution(model, repeat_rows(batch, len(scale)), prefix)

    def switch(layer: int, key: Tensor) -> Tensor:
        return key * scale[:, layer, None]

    changes: dict[tuple[Site, int], Callable[[Tensor], Tensor]] = {
        ("ffn_key", layer): partial(switch, layer) for layer in layers
    }
    with patched(model, changes):
        resid = run.forward()[:, -1:]
    logits = model.unembed(model.final_norm(resid))[:, 0, token].double().cpu().numpy()
    return logits[1:] - logits[0]
