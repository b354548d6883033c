"""From a dataset to its connectomes.

Begin with `reconstruction` (the stages), then `subject` (one visit), then `dataset_run` (all of them, in
parallel).
"""
