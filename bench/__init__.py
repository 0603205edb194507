"""Benchmarks of Corral, side by side with other servers on the same machine, model and flags."""
