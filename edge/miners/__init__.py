"""The miners: each takes one observation a frame and returns what it found. Rules only, no I/O."""
