"""What a site reads and approves before it answers."""
