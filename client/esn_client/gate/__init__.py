"""The one way out: what leaves is bounded, noised, charged, masked and logged here."""
