"""Datasets as BIDS lays them out: scans in, connectomes out."""
