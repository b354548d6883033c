"""What every program here does with files, processes and terminals.

Begin with `files`: a file is whole or not there.
"""
