"""Parts of `gossamer.models.spatten`: configuration and queries, the top-k engine, the units as processes."""
