"""`zonemesh demo`: a whole mesh on this machine, shown and checked, and nothing left of it."""
