"""Sentences with gold labels: treebanks, and the project's own language."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.sentences.fetched import fetch_treebank
    from probes.sentences.own import language
    from probes.sentences.treebank import Sentence, read_treebank

__getattr__, __dir__, __all__ = door(__name__, __file__)
