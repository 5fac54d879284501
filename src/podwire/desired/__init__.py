"""Snapshot → DesiredState: what the kernel of one node should hold. Pure."""
