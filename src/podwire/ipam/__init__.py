"""Which address goes to whom: pure decisions and one compare-and-swap loop."""
