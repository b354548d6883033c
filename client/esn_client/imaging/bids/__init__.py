"""Datasets as BIDS lays them out: scans in, connectomes out.

Begin with `dataset` for what is read, with `derivatives` for what is written.
"""
