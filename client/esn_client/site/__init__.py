"""A site's settings, keys and state, and what it knows of its centre.

Begin with `settings`: everything that a site decides for itself.
"""
