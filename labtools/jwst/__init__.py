"""APOGEE stars as JWST sees them: the pair of HDF5 files, and PypeIt spectra."""
