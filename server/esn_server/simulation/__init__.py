"""Simulated consortia: the demo, its truth, and public pre-training.

Begin with `demo`: a whole consortium on this machine.
"""
