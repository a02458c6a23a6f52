"""The project's own cases: rewrites of facts that a model knows, for tuning and for timing.

Benchmark records are used for measuring only; choices (a layer, a preset) are made on these.
"""

from collections.abc import Sequence

from editing.edits.requests import check
from labkit import stats
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.cases import make_case
from labkit.facts.fact import Case, Fact, Rewrite
from labkit.facts.known import known_sample
from labkit.facts.worlds import facts_of
from labkit.models.model import LabModel
from labkit.progress import Progress

NEIGHBOURS = 10


@checked
def known_cases(
    model: LabModel, n: int, *, seed: int = 0, progress: Progress | None = None
) -> list[Case]:
    """Some facts that a model knows, each with a new object drawn from its relation.

    Args:
        model: The model.
        n: How many cases.
        seed: Seed of the draws.
        progress: Called as facts are asked.

    Raises:
        InputError: If the model does not know enough facts that can be made into cases.
    """
    facts, wanted = facts_of(model), n
    while True:
        sample = known_sample(model, wanted, seed=seed, progress=progress)
        made = [_case(model, known.fact, facts, seed) for known in sample]
        cases = [case for case in made if case is not None]
        if len(cases) >= n:
            return cases[:n]
        wanted += n - len(cases)


def _case(model: LabModel, fact: Fact, facts: Sequence[Fact], seed: int) -> Case | None:
    """A case that rewrites a fact; None if its relation or its subject does not allow one."""
    kin = [other for other in facts if other.relation == fact.relation]
    objects = sorted({o.object for o in kin if o.object and o.object not in fact.answers})
    if not objects:
        return None
    draw = stats.numpy_generator(seed, "new object", fact.relation, fact.subject)
    new = str(draw.choice(objects))
    others = [o for o in kin if o.subject != fact.subject and new not in o.answers and o.answers]
    try:
        check(model, [Rewrite.from_fact(fact, new)])
    except InputError:  # its subject is the prompt's first token, for one
        return None
    return make_case(fact, kin, new, seed=seed, n_neighbours=min(NEIGHBOURS, len(others)))
