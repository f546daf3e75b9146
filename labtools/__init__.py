"""Helper package of the stellar spectroscopy lab: what two cells of the notebooks would otherwise share."""

import importlib
from importlib import metadata

_ROOMS = {
    "apstar": ["read_apstar"],
    "cannon": ["Cannon"],
    "continuum": ["find_continuum_pixels", "normalize", "running_quantile"],
    "handin": ["save_figures", "write_checkpoint"],
    "sdss.survey": ["left_out"],
    "selection": ["LABELS", "bias_and_scatter", "count_cuts", "log_g", "select_giants", "split_by_star"],
    "spectra": ["cap_snr", "resample"],
    "surveys": ["lab_cannon", "normalized_giants", "open_pair", "open_survey", "real_mystery"],
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
_MODULES = ["batch", "coverage", "isochrones", "plots", "posterior", "spectra", "starnet", "training"]

__all__ = sorted(_HOME)


def __getattr__(name):
    """Names and modules are imported when they are first asked for, so that `import labtools` is quick."""
    if name == "__version__":
        return metadata.version("labtools")
    if name in _HOME:
        return getattr(importlib.import_module(f"labtools.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"labtools.{name}")
    raise AttributeError(f"module 'labtools' has no attribute {name!r}")


def __dir__():
    return [*__all__, *_MODULES, "__version__"]
