"""A local port for databases behind Teleport."""
