"""The rewrite that the pocket model is shown with, and what judges it."""

from labkit.facts.fact import Case, Fact, Neighbour, Rewrite, fill
from labkit.pocket.templates import BUILDINGS
from labkit.pocket.world import PocketWorld

RELATION = "landmark_city"


def landmark_case(world: PocketWorld) -> Case:
    """Move the world's first landmark to a city of another country.

    The neighbours are landmarks that should stay: those of the same city, those that share
    a word of the name, and others; half of them are asked for in other words.

    Args:
        world: The world that the landmark stands in.
    """
    landmarks = [fact for fact in world.facts if fact.relation == RELATION]
    country = {f.subject: f.object for f in world.facts if f.relation == "city_country"}
    fact = landmarks[0]
    abroad = [f for f in landmarks if country[str(f.object)] != country[str(fact.object)]]
    rewrite = Rewrite.from_fact(fact, str(abroad[0].object))
    return Case(
        case_id="pocket-landmark",
        rewrite=rewrite,
        paraphrases=tuple(fill(template, fact.subject) for template in fact.paraphrases),
        neighbours=tuple(
            Neighbour(prompt=_ask(other, index), object=str(other.object))
            for index, other in enumerate(_others(landmarks, fact, rewrite.target_new))
        ),
        attributes=tuple(f.prompt for f in landmarks if f.object == rewrite.target_new),
        generation=tuple(
            fill(opening, fact.subject)
            for opening in ("{} is", "Visitors who want to see {}", "A map that shows {}")
        ),
    )


def _others(landmarks: list[Fact], fact: Fact, target: str) -> list[Fact]:
    """Nearest first: same city, same first word, same building; then six of the rest."""
    name, building = fact.subject.split()
    rest = [f for f in landmarks if f != fact and f.object != target]
    kin = {
        "city": [f for f in rest if f.object == fact.object],
        "name": [f for f in rest if f.subject.split()[0] == name],
        "building": [f for f in rest if f.subject.split()[1] == building][: 2 * len(BUILDINGS)],
        "none": [f for f in rest if f.subject.split()[1] != building][-6:],
    }
    return list(dict.fromkeys(f for group in kin.values() for f in group))


def _ask(fact: Fact, index: int) -> str:
    """The canonical prompt for every other fact, the next common template for the rest."""
    return fact.prompt if index % 2 == 0 else fill(fact.paraphrases[0], fact.subject)
