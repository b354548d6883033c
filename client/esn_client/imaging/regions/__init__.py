"""Regions of the atlas in a subject's space, and which of them streamlines join.

Begin with `parcellation`, then `connectivity`.
"""
