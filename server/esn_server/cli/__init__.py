"""The command line of the coordinating centre."""
