"""What an APOGEE file is, and how it gets here: formats, bit masks, the archive's client and its cache."""
