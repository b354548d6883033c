"""Simulated consortia: the demo, its truth, and public pre-training."""
