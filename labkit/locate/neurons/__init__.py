"""Knowledge neurons: found by integrated gradients, suppressed, amplified, with controls."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.locate.neurons.knowledge import KnowledgeNeurons
    from labkit.locate.neurons.knowledge_result import KnowledgeNeuronsResult
    from labkit.locate.neurons.many_facts import NeuronTests, neuron_tests
    from labkit.locate.neurons.switching import NeuronTest

__getattr__, __dir__, __all__ = door(__name__, __file__)
