"""Figures of edits: before and after, methods side by side, side effects."""
