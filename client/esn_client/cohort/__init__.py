"""A site's children and controls."""
