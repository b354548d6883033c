"""The connection to Flower."""
