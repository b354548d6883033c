"""The command line of the coordinating centre: declarations only; the work is done in the other rooms."""
