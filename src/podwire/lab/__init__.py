"""Several nodes on one machine, made of network namespaces."""
