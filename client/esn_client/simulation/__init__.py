"""A simulated hospital on disk: scans or connectomes of children who do not exist.

Begin with `scans`.
"""
