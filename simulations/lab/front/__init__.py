"""The registry's front door: a process between the fleet and a real registry that counts, slows and breaks.

`server` passes requests on, `ledger` counts what was written to each client's socket, `rules` says what goes wrong and
when, `control` takes orders over a unix socket. Run by `python -m simulations.lab.front`; callers drive it through
`simulations.lab.upstream.Front`. It knows nothing of p2pd but the name in its User-Agent.
"""
