"""A site's settings, keys and state, and what it knows of its centre."""
