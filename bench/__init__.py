"""Benchmarks: ratios against peers, A and B interleaved in one run; no test asserts them."""
