"""Podwire: a layer-3 pod network for Linux that explains itself."""

__version__ = "0.1.0"
