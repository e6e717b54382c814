"""Tests of p2pd.upstream: against a real docker-registry, and against a server that misbehaves by script."""
