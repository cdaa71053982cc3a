"""Measurements of keras_resblocks beside its peers: `python -m benchmarks --help`."""
