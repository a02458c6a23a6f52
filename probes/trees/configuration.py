"""How trees are looked for: which structural probe, at which depths, on how many sentences.

    probe_trees(model, sentences)                          # `USUAL`
    probe_trees(model, sentences, TreeProbing(rank=16, depths=(0, 8), controls=False))

A configuration is checked when it is made, before any model is loaded or run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from probes.arguments import require_finite, require_number
from probes.states.selection import States
from probes.trees.structural import StructuralProbe


@dataclass(frozen=True, kw_only=True)
class TreeProbing:
    """How trees are looked for.

    Attributes:
        depths: Which depths, 0 the embedding; all with None.
        n_train: Sentences that the probe is fitted to, at most.
        n_test: Sentences that it is scored on, at most.
        controls: Whether to probe a random-weight model too.
        rank: Rows of the probe's map; the width of the states where that is smaller.
        epochs: Passes over the sentences.
        learning_rate: Of Adam in the first epoch, above 0; it falls to 0.
        batch: Sentences of a step.
        seed: Seed of every draw.

    Raises:
        InputError: If a number is out of its range.
    """

    depths: Sequence[int] | None = None
    n_train: int = 3000
    n_test: int = 300
    controls: bool = True
    rank: int = 64
    epochs: int = 20
    learning_rate: float = 1e-3
    batch: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no trees can be found with."""
        object.__setattr__(self, "depths", self.states.depths)
        for name in ("n_train", "n_test", "rank", "epochs", "batch"):
            require_number(name, getattr(self, name), least=1)
        require_number("seed", self.seed, least=None)
        require_finite("learning_rate", self.learning_rate, above=0)

    @property
    def states(self) -> States:
        """Which states are read."""
        return States(depths=self.depths)

    @property
    def probe(self) -> StructuralProbe:
        """The probe, not fitted yet."""
        return StructuralProbe(
            rank=self.rank,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch=self.batch,
            seed=self.seed,
        )


USUAL = TreeProbing()
"""How `probe_trees` works unless told otherwise."""
