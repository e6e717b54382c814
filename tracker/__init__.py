"""The directory as a server: `p2pd-tracker run`. The logic is `p2pd.swarm.directory`, the wire `p2pd.peers`."""
