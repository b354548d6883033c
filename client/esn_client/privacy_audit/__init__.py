"""Attacks on a protocol's releases, rehearsed on the site's own children.

Begin with `audit`.
"""
