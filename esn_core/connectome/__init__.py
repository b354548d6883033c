"""Connectomes: regions, streamline counts, and the strengths and scores of edges.

Begin with `connectome`, then `atlas` for what the rows stand for, then `template` for how an edge is judged.
The directory `atlases` holds the atlases, their templates and their imaging recipes as data.
"""
