"""What one sees: tables, plots, timelines, and validation against papers."""
