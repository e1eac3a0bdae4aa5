"""Parts of `gossamer.models.eie`: configuration, recurrences, the units as processes, results."""
