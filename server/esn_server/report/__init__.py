"""What a study found, as data and as a page."""
