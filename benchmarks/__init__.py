"""What pythpeer costs and whether its pacing holds, beside its peers: ``python -m benchmarks``."""
