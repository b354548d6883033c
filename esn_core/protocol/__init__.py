"""The protocol of a study: its rules, its phases, its price and its signature."""
