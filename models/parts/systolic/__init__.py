"""Parts of `gossamer.models.systolic`: configuration and products, the array clock edge by clock edge."""
