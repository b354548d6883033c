"""The command line of a hospital: declarations only; the work is done in the other rooms."""
