"""A setting of windowshift in a package of its own: wording."""
