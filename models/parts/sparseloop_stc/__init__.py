"""Parts of `gossamer.models.sparseloop_stc`: configuration and mapping, the units step by step."""
