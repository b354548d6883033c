"""Statistics from sums: each module has the row of a child, its bound, and what the sum says.

Begin with `agreement`, which every study has.
"""
