"""From a dataset to its connectomes."""
