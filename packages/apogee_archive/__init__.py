"""What an APOGEE file is, and how it gets here: formats, bit masks, the archive's client, cache.

From the file to the archive: `grid`, `bitmasks`, `fits_headers`, `apstar` and `files` say what one
star's spectrum is, `columns` and `catalog` what the catalog is. `http`, `survey` and `dr17` bring
them here and keep them (`cache`). `mist`, `jwst_pair`, `hdf5_frames`, `pickled_text` and `nirspec`
read what else the lab uses.
"""
