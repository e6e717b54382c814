"""End to end: real containerd, a real registry, real daemons, real kills: the promises, seen from outside."""
