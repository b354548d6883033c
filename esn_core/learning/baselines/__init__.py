"""What the severity model is compared with."""
