"""Labels of stars, completed: every abundance and broadening that a spectrum depends on."""

import numpy as np

from labtools.simulation.atmosphere import ATOMS

__all__ = ["abundances", "complete_labels"]

REQUIRED = ("teff", "logg", "fe_h", "mg_fe", "si_fe")


def complete_labels(labels):
    """`labels` with every abundance and both broadening velocities filled in; a new DataFrame of floats.

    Absent columns: O, S, Ca, Ti and Al follow alpha, the mean of Mg and Si. Carbon and nitrogen follow the
    trends of giants in APOGEE DR12 (after the first dredge-up; rounded): [C/Fe] = -0.1 + 0.8 alpha + 0.1
    (log g - 2.5), [N/Fe] = 0.1 - 0.2 (log g - 2.5). Other elements follow iron; `vmicro` and `vmacro`
    (km/s) are those of APOGEE's pipeline (Holtzman et al. 2018). Columns that the model does not know are
    left out. Raises ValueError for a missing or non-finite label.
    """
    missing = [name for name in REQUIRED if name not in labels]
    if missing:
        raise ValueError(f"labels need the columns {missing}: teff (K), logg, fe_h, mg_fe, si_fe (dex)")
    defaults = {f"{e.lower()}_fe": 0.0 for e in ATOMS if e not in ("H", "Fe")}
    known = {*REQUIRED, *defaults, "vmicro", "vmacro"}
    full = labels[[c for c in labels if c in known]].astype(float)
    alpha = 0.5 * (full["mg_fe"] + full["si_fe"])
    defaults |= dict.fromkeys(("o_fe", "s_fe", "ca_fe", "ti_fe", "al_fe"), alpha)
    g = full["logg"]
    defaults |= {"c_fe": -0.1 + 0.8 * alpha + 0.1 * (g - 2.5), "n_fe": 0.1 - 0.2 * (g - 2.5)}
    defaults["vmicro"] = 10 ** (0.226 - 0.0228 * g + 0.0297 * g**2 - 0.0113 * g**3)
    defaults["vmacro"] = 10 ** (0.470794 - 0.254120 * full["fe_h"].clip(-2.5, 0.6))
    full = full.assign(**{k: v for k, v in defaults.items() if k not in full})
    bad = full.index[~np.isfinite(full).all(axis=1)]
    if len(bad):
        raise ValueError(f"labels of {len(bad)} star(s) are not finite, first: {bad[0]}")
    return full


def abundances(full):
    """Atoms per hydrogen nucleus of stars with completed labels: element -> (star,)."""
    result = {"H": np.ones(len(full))}
    for element, (solar, *_) in ATOMS.items():
        if element != "H":
            ratio = 0.0 if element == "Fe" else full[f"{element.lower()}_fe"]
            result[element] = (10 ** (solar - 12 + full["fe_h"] + ratio)).to_numpy()
    return result
