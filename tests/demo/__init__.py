"""The fan-out to look at: `python -m tests.demo`, or `make demo`."""
