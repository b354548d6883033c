"""What a site computes for each question; the gate alone lets it go."""
