"""What bounds and hides a child: the release mechanism, its accounting, the secure sum."""
