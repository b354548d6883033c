"""The connection to the centre; it knows no data."""
