"""Labkit."""
