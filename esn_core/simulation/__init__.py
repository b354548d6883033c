"""Simulated children: their connectomes, their scores and their raw scans."""
