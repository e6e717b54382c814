"""What the network, a registry, an operator's files and a damaged disk may hold, thrown at the code that reads it.

One module for each target, with one function: `check(data)` reads the bytes as its target would, and fails if anything
but the documented happens. corpus/<target>/ has inputs to start from, and those that once failed. The gate replays them
and tries some mutations (test_corpus.py); `make fuzz` lets atheris look for longer, led by what the code covers.
"""
