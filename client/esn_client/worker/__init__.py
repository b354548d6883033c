"""The process with the children in it, and its parent without.

Begin with `process`, the child; `executor` is what its parent sees of it.
"""
