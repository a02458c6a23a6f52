"""How tasks are probed: which probe, on which states, beside which controls.

    probe(model, task)                                     # `USUAL`
    probe(model, task, Probing(estimator="ridge", depths=(0, 8, 16)))
    probe_map(model, tasks, replace(MAP, n_train=200))     # dataclasses.replace

A configuration is checked when it is made, before any model is loaded or run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.errors import InputError
from probes.arguments import require_number
from probes.probing.description_length import FEW_PORTIONS, PORTIONS, checked_portions
from probes.probing.estimators import ESTIMATORS
from probes.states.selection import Pieces, States, Where


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How a task is probed.

    Attributes:
        estimator: A name in `ESTIMATORS`: "logistic" (ridge takes its place where labels are
            numbers), "ridge", "centroid", "mean_difference", "sparse", "mlp1", "mlp2".
        where: Which states: the residual stream ("resid"), "attn_out", "ffn_out", "ffn_key" or
            "head_out".
        depths: Which depths (or layers), 0 the lowest; all with None.
        pieces: Which of a word's tokens are read: "first", "last" or their "mean".
        controls: Whether to fit the control task, shuffled labels, the random-weight twin and
            the online code; the baselines are always there.
        n_train: Examples of either side of the split at most; all with None.
        portions: Ends of the portions of the online code, as shares of the training side that
            rise to 1.
        keep: Whether the result keeps the fitted probes (`ProbeResult.fitted`).
        seed: Seed of every draw.

    Raises:
        InputError: If there is no such probe, site or piece, or a number is out of its range.
    """

    estimator: str = "logistic"
    where: Where = "resid"
    depths: Sequence[int] | None = None
    pieces: Pieces = "last"
    controls: bool = True
    n_train: int | None = 2000
    portions: Sequence[float] = PORTIONS
    keep: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no task can be probed with."""
        if self.estimator not in ESTIMATORS:
            raise InputError(
                f"no probe is called {self.estimator!r}; there are {', '.join(ESTIMATORS)}"
            )
        object.__setattr__(self, "depths", self.states.depths)
        object.__setattr__(self, "portions", checked_portions(self.portions))
        require_number("n_train", self.n_train, least=2, none="all")
        require_number("seed", self.seed, least=None)

    @property
    def states(self) -> States:
        """Which states are read."""
        return States(where=self.where, depths=self.depths, pieces=self.pieces)


USUAL = Probing()
"""How `probe` works unless told otherwise."""

MAP = Probing(n_train=1000, portions=FEW_PORTIONS, keep=False)
"""The same for a map of many tasks: half the examples, a short code, and no probes kept."""
