"""Performance of Perdure beside a peer that speaks the same protocol. Run `python -m benchmarks --help`."""
