"""Parts of `gossamer.models.torchsparse`: plan, grouping of offsets, the units as processes."""
