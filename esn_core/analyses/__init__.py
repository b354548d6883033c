"""What a protocol may ask beyond the severity network and its prediction."""
