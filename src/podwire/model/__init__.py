"""Nouns: frozen values that check their own invariants."""
