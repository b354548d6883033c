"""Protocols as the centre drafts, prices and signs them.

Begin with `drafting`.
"""
