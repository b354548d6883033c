"""One run of a study: its directory, its steps on disk, its place in the queue.

Begin with `run`.
"""
