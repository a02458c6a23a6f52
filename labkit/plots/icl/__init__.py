"""Figures of learning in context."""
