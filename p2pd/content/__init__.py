"""The blobs of this node, whole and arriving: between the store, the swarm's core, the upstreams and the mirror.

arrival.py    one blob that is arriving: what is known of it, what of it is there
arrivals.py   all of them: their files, and what the core and the clients are told
chains.py     the states of a blob that the store has
pulling.py    this node's own pull of a blob from upstream
readers.py    one client reading one blob, with hold-back, waiting and giving up
library.py    what the mirror serves from: names, sizes, private repositories, prefetch
catalogue.py  what proven manifests have told
images.py     a whole image, for a command
tags.py       what a tag is now
records.py    what is written beside a checked piece
"""
