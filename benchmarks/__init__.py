"""splitpipe measured: `python -m benchmarks.storage`, `rows` and `transport` beside its peers, `scale` by itself."""
