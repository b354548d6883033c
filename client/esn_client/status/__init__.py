"""How a site stands."""
