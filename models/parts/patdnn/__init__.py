"""Parts of `gossamer.models.patdnn`: execution plan, recurrences, traffic, the units as processes."""
