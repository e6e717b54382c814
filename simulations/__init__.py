"""The swarm in virtual time, and the real daemons in a laboratory: what a rollout takes, before it is done.

Runs `p2pd.swarm` unchanged. Nothing in `p2pd` or `tracker` imports it.
"""
