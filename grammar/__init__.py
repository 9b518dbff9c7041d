"""Grammars as potentials over strings. Nothing is here yet."""
