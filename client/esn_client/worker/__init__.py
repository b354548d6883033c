"""The process with the children in it, and its parent without."""
