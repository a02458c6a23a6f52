"""FFN layers as key-value memories: what a neuron detects, what it writes, and its effect.

- `find_triggers`, `patterns`: the prefixes that excite a key, and what they have in common
- `words_of`, `writers`, `agreement`: the words of a value; which neurons write a word; whether a
  value promotes what followed its key's triggers
- `contributions`, `switched`: what each neuron adds to one answer, and the loss without it
- `neuron_card`: all of it for one neuron; `ffn_share`: how much of a model is FFN

References:
    Geva et al. 2021, Transformer Feed-Forward Layers Are Key-Value Memories.
    Geva et al. 2022, Transformer Feed-Forward Layers Build Predictions by Promoting Concepts
    in the Vocabulary Space.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.memories.cards import NeuronCard, activation_on, neuron_card
    from labkit.memories.composition import Contributions, contributions
    from labkit.memories.concordance import Concordance, agreement
    from labkit.memories.recurrence import Patterns, patterns
    from labkit.memories.switching import Switch, switched
    from labkit.memories.trigger_search import find_triggers
    from labkit.memories.triggers import Triggers
    from labkit.memories.values import Words, words_of
    from labkit.memories.weights import ffn_share
    from labkit.memories.writing import Writers, writers

__getattr__, __dir__, __all__ = door(__name__, __file__)
