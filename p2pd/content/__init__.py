"""The blobs of this node, whole and arriving: between the store, the swarm's core, the upstreams and the mirror.

arrivals.py   blobs that are arriving: their files, what is there, who waits
pulling.py    this node's own pull of a blob from upstream
readers.py    one client reading one blob, with hold-back, waiting and giving up
library.py    what the mirror serves from: names, sizes, private repositories, prefetch
tags.py       what a tag is now
records.py    what is written beside a checked piece
"""
