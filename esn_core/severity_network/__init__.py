"""The epilepsy severity network: its candidates, its selection, its stability."""
