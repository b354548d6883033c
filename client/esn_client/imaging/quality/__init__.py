"""How good a prepared subject is: numbers, pages, and a site's table."""
