"""From which depth a fact is readable, and from which it is said; lenses and translators."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.cloze.objects import Cloze
    from probes.cloze.translator_fit import TranslatorFit

__getattr__, __dir__, __all__ = door(__name__, __file__)
