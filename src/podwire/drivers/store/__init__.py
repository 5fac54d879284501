"""Datastores behind `boundary.Store`."""
