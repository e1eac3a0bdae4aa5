"""Readers and writers of the files that traces come in."""
