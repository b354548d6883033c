"""Connectomes: regions, streamline counts, and the strengths and scores of edges."""
