"""`make bench`: every figure of the README, with the machine and the versions."""
