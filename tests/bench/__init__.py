"""Benchmarks: each prints a table with a ratio, both sides measured in one run on one machine. Not tests."""
