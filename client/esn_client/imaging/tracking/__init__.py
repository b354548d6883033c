"""Streamlines: followed, weighted, stored."""
