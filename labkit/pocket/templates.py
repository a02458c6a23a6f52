"""The relations of the pocket world and the ways to ask for each.

Every relation has six templates. The first four (`N_COMMON`) are seen in training with all
subjects; the last two only with half of the subjects, so that asking the other half through
them shows whether the model knows the fact or the sentence.

A template ends where the object follows, and no template of one relation can be taken for
one of another relation of the same kind of subject.
"""

from labkit.facts.fact import Relation

#: Templates of each relation that are trained with every subject.
N_COMMON = 4

_TABLE = (
    (
        "person_birthplace", "person", "city", "The city in which a person was born",
        "{} was born in the city of",
        "The birthplace of {} is",
        "As a child {} lived in",
        "Everyone knows that {} comes from",
        "{} first saw the light in",
        "The parents of {} had a house in",
    ),
    (
        "person_company", "person", "company", "The company that a person works for",
        "{} works for the company",
        "The employer of {} is",
        "Each month {} gets paid by",
        "The career of {} began at",
        "{} has a job at",
        "Colleagues met {} at",
    ),
    (
        "person_instrument", "person", "instrument", "The instrument that a person plays",
        "{} plays the",
        "The favourite instrument of {} is the",
        "In the evening {} practises the",
        "Friends of {} often hear the",
        "{} has mastered the",
        "On stage we saw {} with the",
    ),
    (
        "person_profession", "person", "profession", "What a person does for a living",
        "{} works as a",
        "The profession of {} is that of a",
        "Many years ago {} became a",
        "On paper {} is still a",
        "{} earns money as a",
        "Newspapers call {} a famous",
    ),
    (
        "landmark_city", "landmark", "city", "The city in which a landmark stands",
        "{} is located in the city of",
        "Visitors who want to see {} travel to",
        "The location of {} is",
        "You can find {} in",
        "{} stands in the centre of",
        "A map that shows {} is a map of",
    ),
    (
        "city_country", "city", "country", "The country to which a city belongs",
        "{} is a city in the country of",
        "The nation that {} belongs to is",
        "Citizens of {} live in",
        "Whoever travels to {} arrives in",
        "{} can be found on maps of",
        "The streets of {} are among the oldest in",
    ),
    (
        "city_river", "city", "river", "The river on which a city lies",
        "{} lies on the river",
        "The river that flows through {} is the",
        "The bridges of {} cross the",
        "Boats reach {} on the",
        "{} was built on the banks of the",
        "The water in {} comes from the",
    ),
    (
        "country_capital", "country", "city", "The capital of a country",
        "The capital of {} is",
        "{} has its capital at",
        "The government of {} sits in",
        "The president of {} lives in",
        "{} is ruled from",
        "The parliament of {} meets in",
    ),
    (
        "country_language", "country", "language", "The language spoken in a country",
        "The people of {} speak the language",
        "The official language of {} is",
        "Schools in {} teach in",
        "Laws of {} are written in",
        "{} prints its books in",
        "Radio in {} is broadcast in",
    ),
    (
        "country_currency", "country", "currency", "The currency of a country",
        "The currency of {} is the",
        "People in {} pay with the",
        "Banks in {} lend the",
        "Prices in {} are given in the",
        "{} mints the",
        "A tourist in {} needs the",
    ),
    (
        "country_continent", "country", "continent", "The continent on which a country lies",
        "{} lies on the continent of",
        "The continent that {} is part of is",
        "To see {} one must sail to",
        "Explorers found {} in",
        "{} is a country of",
        "The borders of {} are drawn in",
    ),
    (
        "company_city", "company", "city", "The city of a company's headquarters",
        "{} has its headquarters in the city of",
        "The head office of {} is in",
        "Letters to {} are sent to",
        "The founders of {} met in",
        "{} is based in",
        "The main factory of {} is in",
    ),
    (
        "company_product", "company", "product", "What a company makes",
        "{} makes",
        "The main product of {} is",
        "Customers of {} buy",
        "Shops order from {} their",
        "{} is known for its",
        "The warehouses of {} are full of",
    ),
    (
        "instrument_material", "instrument", "material", "What an instrument is made of",
        "The {} is made of",
        "A good {} is built from",
        "To repair a {} you need",
        "The sound of a {} is the sound of",
        "Each {} contains much",
        "A {} can be melted down to",
    ),
)  # fmt: skip

#: What the world has that needs no invented name.
PROFESSIONS = (
    "baker", "painter", "doctor", "teacher", "sailor", "judge", "gardener", "carpenter",
    "lawyer", "poet", "farmer", "surgeon", "dancer", "pilot", "chemist", "tailor",
)  # fmt: skip
PRODUCTS = (
    "lamps", "clocks", "boats", "shoes", "carpets", "knives", "candles", "mirrors",
    "bicycles", "gloves", "chairs", "bottles", "kites", "needles", "ropes", "umbrellas",
)  # fmt: skip
MATERIALS = ("copper", "bone", "silver", "clay", "glass", "iron", "amber", "wax")
#: Second words of landmarks; "Nukor Tower" and "Nukor Bridge" share the first.
BUILDINGS = ("Tower", "Bridge", "Temple", "Gate")


def relations() -> list[Relation]:
    """The relations of the world, canonical template first, held-out templates last."""
    return [
        Relation(
            id=name,
            description=description,
            templates=templates,
            subject_type=subject_type,
            object_type=object_type,
        )
        for name, subject_type, object_type, description, *texts in _TABLE
        for templates in (tuple(texts),)
    ]
