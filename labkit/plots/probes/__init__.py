"""Figures of probes: scores by depth, facts by depth, relations."""
