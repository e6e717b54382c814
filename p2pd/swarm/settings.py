"""The policy's numbers: one place for the daemon, the simulator and the tests. Units stand last in the names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node does by default. Each number's reason stands beside it."""

    # neighbours
    neighbours_enough: int = 48  # at 256 nodes 40 lose 0.015 of the bound, 56 lose 0.002 and cost more
    reach_out_at_once: int = 20  # of one answer; the others reach out too, so that makes about 1.7 times as many
    connections_max: int = 96  # all blobs together
    inbound_max: int = 64  # places are kept free to reach out, else the graph falls apart

    # downloads
    sources: int = 4  # uploaders that we ask at a time: as many as `places`, or one end of the lines stands idle
    behind_pieces: int = 12  # behind the neighbours: one source more; three times as many: two; ahead: one less;
    # ... and who is so far behind a peer that is sent to takes over its place: p2pd.swarm.uploads
    sources_most: int = 10  # ... if some of them are slow
    requests_most: int = 32
    at_one_uploader: int = 2  # of ours, one under way and one queued: no gap between two pieces
    at_one_most: int = 8  # of small pieces on fast lines
    pipeline_s: float = 0.02  # what is asked at one uploader lasts so long at least; 0.03 loses 0.06 of a 50 MB layer
    window_most_bytes: int = 64 * 1024 * 1024  # asked for; memory is bound by what arrives: p2pd.peers.buffers
    rate_first: float = 10e6  # bytes/s taken for a peer that nothing is known of
    late_factor: float = 3.0  # times its usual: ask the next best too
    late_least_s: float = 0.3
    late_first_s: float = 4.0  # while nothing is usual yet
    slowest_rate: float = 0.5e6  # bytes/s that a transfer is believed to reach before it counts as late
    silent_wait_s: float = 10.0  # who let us wait in vain is asked again after this
    stalled_s: float = 15.0  # a request without an end is given up
    endgame_factor: float = 2.0  # of the median: at the end, hedge what is expected later
    avoid_s: float = 60.0  # a peer that was caught
    refused_wait_s: float = 0.5  # a busy uploader is asked again after this, or at its next news
    refused_least_s: float = 0.03  # ... but not sooner than this; 0.05 loses 0.01 of the bound
    across_late_s: float = 0.5  # at least: what does not enter the zone in this time is the next node's to fetch
    stuck_rate: float = 1e6  # bytes/s: on slower lines a piece may take longer than `stuck_s`
    stuck_s: float = 3.0  # wanted, and no piece for so long

    # uploads
    places: int = 4  # peers that are sent to at a time: 3 and 5 lose 0.03 of the bound
    places_first: int = 2  # ... for the first claims of all: a slow holder shows twice as soon
    places_most: int = 8  # beside receivers that drain at under half of our free rate
    queued_at_place: int = 8  # requests of the peer that has the place

    # news
    news_s: float = 0.03  # between two batches; the first goes out at once. 0.06 loses 0.02 of the bound
    news_turns: int = 3  # ... each to one in three of the neighbours, the others hear next: fewer come in vain
    news_to_all: int = 16  # ... unless there are no more than so many

    # seeding
    ahead_ratio: float = 0.02  # of the blob: what a dead seeder takes with it
    ahead_pieces: int = 2
    alone_pieces: int = 8  # while nobody else wants it: no limit, but never far ahead of what may change
    shown_to_one: int = 2  # pieces that one neighbour is shown at a time
    claim_least_s: float = 1.0  # a claim that does not move within two piece times is open again, but not earlier
    free_run_s: float = 1.0  # nobody takes anything: the seeder goes on for itself
    own_client_share: float = 0.5  # of upstream's rate, at least, for the seeder's own client
    own_client_s: float = 4.0  # ... but not before: a slow holder hands on what it has not got rid of, too
    resume_grace_s: float = 1.0  # a second holder first hears what the swarm has

    # directory
    announce_holder_s: float = 2.0
    announce_hungry_s: float = 2.0
    announce_calm_s: float = 15.0
    settle_s: float = 3.0  # after the start: time for a tracker or mDNS to be heard before one's own view counts
    holdings_most: int = 512
    swarms_most: int = 512  # blobs in memory; idle proven ones go first
