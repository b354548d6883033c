"""Streamlines: followed, weighted, stored.

Begin with `tracking`; `propagation` is its inner loop.
"""
