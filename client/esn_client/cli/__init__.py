"""The command line of a hospital."""
