"""Desired against actual, with no networking word in it."""
