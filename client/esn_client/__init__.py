"""One hospital: from its scans to answers that may leave."""
