"""Prediction of a child that a study never saw, with a released model, at a hospital with own controls.

Research use only. Nothing leaves, nothing is charged, no network is needed. Begin with `command`.
"""
