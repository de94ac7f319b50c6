"""A loop of our own on Lightning Fabric."""
