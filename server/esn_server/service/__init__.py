"""The centre's processes and where they are reached.

Begin with `supervisor`.
"""
