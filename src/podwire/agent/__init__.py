"""The node agent: one per node, the single owner of the pod network in its kernel."""
