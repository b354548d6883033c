"""Simulated children: their connectomes, their scores and their raw scans.

Begin with `consortium` for edge scores of many sites at once, with `cohort` for one site's connectomes, with
`diffusion` for a raw scan of known truth.
"""
