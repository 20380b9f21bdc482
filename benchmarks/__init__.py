"""splitpipe measured beside its peers: `python -m benchmarks.storage`, `python -m benchmarks.transport`."""
