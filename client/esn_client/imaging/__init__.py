"""From raw diffusion MRI to a connectome, one subject at a time."""
