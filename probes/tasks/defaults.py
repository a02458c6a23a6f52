"""The tasks that a probe map asks by default: five families of knowledge, no download.

For the pocket model those of its own world (`probes.tasks.pocket`). For any other model eighteen
tasks from what ships with the lab:

| family | tasks | from |
|---|---|---|
| surface | position, word_length, word_content | the project's own language |
| lexical | upos, number, tense | the project's own language |
| syntactic | deprel, head_distance, tree_depth | the project's own language |
| | grammaticality | own minimal pairs |
| semantic | role | the project's own language |
| | noun_category, animacy, word_sense | own word lists |
| factual | continent, maker_country, occupation, truth | the bundled facts |

Two more are made when they are named: `better_of_pair`, grammaticality read off the difference of
two states, and `birth_year`, a number. They stand out of the map because the first reads another
kind of state, and the second is no class.

Words of the language's test sentences do not occur in its training sentences (but for function
words), so that a label cannot be looked up; `word_content`, which is about the words themselves,
shares them. What a bag of tokens could do stands with each task's own module.
"""

from collections.abc import Callable, Sequence

from labkit import pocket
from labkit.arguments import checked
from labkit.errors import InputError
from labkit.facts.worlds import world_of
from labkit.models.model import LabModel
from probes.sentences.own import SOURCE, language
from probes.tasks import factual as factual_tasks
from probes.tasks import semantic as semantic_tasks
from probes.tasks.linguistic import linguistic_tasks
from probes.tasks.minimal_pairs import better_of_pair, grammaticality
from probes.tasks.pocket import pocket_tasks
from probes.tasks.task import Task

OF_LANGUAGE = (
    "position", "word_length", "upos", "number", "tense", "deprel", "head_distance",
    "tree_depth", "role",
)  # fmt: skip

TASKS = (
    "position", "word_length", "word_content", "upos", "number", "tense", "deprel",
    "head_distance", "tree_depth", "grammaticality", "role", "noun_category", "animacy",
    "word_sense", "continent", "maker_country", "occupation", "truth",
)  # fmt: skip
"""Names of the default tasks of a model that reads English."""

MORE_TASKS = ("better_of_pair", "birth_year")
"""Names of tasks that such a model is asked when they are named."""

POCKET_TASKS = (
    "position", "word_length", "word_category", "sentence_part", "subject_type", "relation",
    "profession", "instrument", "truth",
)  # fmt: skip
"""Names of the default tasks of the pocket model."""

EXAMPLES = 700
"""Examples on either side of a split at most."""

LEAST = 70
"""Training words of a class among some 4,500: ten or more of the 700 that are drawn."""


def names_of(model: LabModel) -> tuple[str, ...]:
    """Names of a model's default tasks.

    Raises:
        InputError: If its world is neither English nor the pocket world.
    """
    world = world_of(model)
    if not world.reads_english and world is not pocket.as_world():
        raise InputError(
            f"there are no default tasks for the world {world.name!r}, which is not English: make "
            "tasks from its facts (probes.tasks.Task) and pass them"
        )
    return TASKS if world.reads_english else POCKET_TASKS


@checked
def default_tasks(
    model: LabModel,
    *,
    names: Sequence[str] | None = None,
    n_examples: int = EXAMPLES,
    seed: int = 0,
) -> dict[str, Task]:
    """The default tasks for a model, by name, surface first and facts last.

    Args:
        model: The model that is to be probed.
        names: Which of them; all by default.
        n_examples: Examples on either side of a task's split at most.
        seed: Seed of everything that is drawn.

    Raises:
        InputError: If there is no such task for this model.
    """
    usual = names_of(model)
    english = world_of(model).reads_english
    known = (*usual, *MORE_TASKS) if english else usual
    chosen = usual if names is None else names
    for name in chosen:
        if name not in known:
            raise InputError(f"no task {name!r} for {model.name}; there are {', '.join(known)}")
    made = _english(chosen, seed) if english else pocket_tasks(seed=seed)
    return {name: made[name].limited(n_examples, seed=seed) for name in known if name in chosen}


def _english(names: Sequence[str], seed: int) -> dict[str, Task]:
    """Tasks for models that read English."""
    found: dict[str, Task] = {}
    wanted = [name for name in OF_LANGUAGE if name in names]
    if wanted:
        train = language(400, part="train", seed=seed)
        test = language(200, part="test", seed=seed)
        found |= linguistic_tasks(train, test, names=wanted, source=SOURCE, least=LEAST)
    if "word_content" in names:
        sentences = language(2000, seed=seed)
        found |= linguistic_tasks(sentences, names=["word_content"], source=SOURCE)
    makers: dict[str, Callable[[], Task]] = {
        "grammaticality": grammaticality,
        "noun_category": semantic_tasks.noun_category,
        "animacy": semantic_tasks.animacy,
        "word_sense": semantic_tasks.word_sense,
        "continent": factual_tasks.continent,
        "maker_country": factual_tasks.maker_country,
        "occupation": factual_tasks.occupation,
        "better_of_pair": lambda: better_of_pair(seed=seed),
        "birth_year": factual_tasks.birth_year,
    }
    found |= {name: make() for name, make in makers.items() if name in names}
    if "truth" in names:
        found["truth"] = factual_tasks.truth(seed=seed)
    return found
