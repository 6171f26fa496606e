"""Benchmarks of ipodyn against other ways to do the same work; run `python -m benchmarks` from the checkout."""
