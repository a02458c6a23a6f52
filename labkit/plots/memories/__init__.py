"""Figures of FFN memories: words, contributions, neuron cards."""
