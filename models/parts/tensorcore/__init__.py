"""Parts of `gossamer.models.tensorcore`: instructions, products in tiles, the units as processes, the numbers."""
