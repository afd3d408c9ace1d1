"""Measurements with real processes: `make bench` (see docs/benchmarks.md)."""
