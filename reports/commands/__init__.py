"""What each command does: one function a command, grouped by file; ``__main__`` puts them together."""
