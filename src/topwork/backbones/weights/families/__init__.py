"""A builder for each family of networks, and the layers that several of them share. Read `vit` first."""
