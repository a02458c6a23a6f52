"""Figures of traces, attributions, neurons and heads."""
