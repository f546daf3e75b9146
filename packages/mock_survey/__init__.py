"""What the sky would look like if we knew the truth: a forward model that writes an archive in the real formats."""
