"""The simulated survey: atmospheres, spectra, a population, and files in the real formats."""
