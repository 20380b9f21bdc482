"""splitpipe measured: `python -m benchmarks.storage`, `rows`, `transport`, `pipeline` beside peers, `scale` alone."""
