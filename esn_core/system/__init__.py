"""What every program here does with files, processes and terminals."""
