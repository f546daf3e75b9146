"""Figures that more than one notebook draws. Nothing is computed here.

Functions that draw on existing axes take `ax` (or `axs`) and return it; without one they use the
current axes of pyplot.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from labtools.selection import native_byte_order
from labtools.spectra import by_star, chips

__all__ = [
    "TITLES", "UNITS", "chip_panels", "mark_lines", "plot_corner", "plot_curve", "plot_kiel",
    "plot_offset", "plot_one_to_one", "plot_spectrum", "show", "title",
]  # fmt: skip

TITLES = {
    "teff": r"$T_{\rm eff}$",
    "logg": r"$\log g$",
    "fe_h": "[Fe/H]",
    "mg_fe": "[Mg/Fe]",
    "si_fe": "[Si/Fe]",
    "alpha_m": r"[$\alpha$/M]",
}
"""How the names of labels are written in a figure."""

UNITS = {"teff": "K"}
"""Units of labels; those that are not here are in dex."""

WAVELENGTH_TITLE = "vacuum wavelength [Å]"

ELEMENT_COLORS = {
    "Mg I": "C1", "Si I": "C2", "Fe I": "C0", "Al I": "C3", "Ca I": "C4", "H I": "C6",
}  # fmt: skip

STEADY_HELIUM_BURNING = 631
"""Equivalent evolutionary point from which helium burns steadily (Dotter 2016, ApJS 222, 8)."""


class Titled(Protocol):
    """What figures need of a survey: its title, such as "simulated survey"."""

    title: str


def title(label: str) -> str:
    """
    Name of a label with its unit, for an axis.

    Parameters
    ----------
    label : str
        Column of a table of labels; one that `TITLES` does not know is written as it is.

    Returns
    -------
    str

    Examples
    --------
    >>> title("fe_h")
    '[Fe/H] [dex]'
    """
    return f"{TITLES.get(label, label)} [{UNITS.get(label, 'dex')}]"


def show(figure: Figure, alt: str) -> None:
    """
    Show a figure as a still picture with a text for those who cannot see it, and close it.

    Parameters
    ----------
    figure : Figure
        It can still be saved afterwards.
    alt : str
        A sentence or two, with the decisive numbers. TeX between dollars becomes plain text.

    Examples
    --------
    >>> figure, ax = plt.subplots()
    >>> show(figure, "An empty pair of axes.")
    """
    if get_ipython() is None:
        plt.show()
    else:
        plain = re.sub(r"\$(.*?)\$", lambda tex: re.sub(r"\\rm |[\\{}_]", "", tex[1]), alt)
        picture = {"image/png": print_figure(figure, base64=True), "text/plain": repr(figure)}
        display(picture, raw=True, metadata={"image/png": {"alt": plain}})
    plt.close(figure)


def plot_corner(
    labels: pd.DataFrame, survey: Titled, fig: Figure | None = None, **options: Any
) -> Figure:
    """
    Corner plot of a table of labels.

    The contours hold 39 % and 86 % of the stars, which is 1 and 2 sigma in two dimensions.

    Parameters
    ----------
    labels : DataFrame
        One row per star, one column per label. Rows with a value that is not finite are left out,
        and the title says how many.
    survey : object with a `title`
        The source of the stars, for the title of the figure.
    fig : Figure, optional
        An earlier corner plot to draw over.
    **options
        For `corner.corner`.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If no complete row is left, or a label has the same value for all stars.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> rng = np.random.default_rng(0)
    >>> labels = pd.DataFrame(rng.normal(size=(200, 2)), columns=["fe_h", "mg_fe"])
    >>> figure = plot_corner(labels, SimpleNamespace(title="simulated survey"))
    >>> figure.get_suptitle()
    '200 stars, simulated survey'
    """
    from corner import corner  # here, because it imports arviz and bokeh, which takes seconds

    values = labels.to_numpy(float)
    complete = np.isfinite(values).all(axis=1)
    values = values[complete]
    if not len(values):
        raise ValueError(f"none of the {len(labels)} rows has a finite value of every label")
    constant = [
        str(name) for name, column in zip(labels, values.T, strict=True) if not np.ptp(column)
    ]
    if constant:
        raise ValueError(
            f"all {len(values)} stars have the same {', '.join(constant)}: leave that column out"
        )
    settings: dict[str, Any] = {
        "levels": (0.393, 0.865),
        "color": "#0072B2",
        "hist_kwargs": {"lw": 1.2},
        "bins": 30,
        "smooth": 0.8,
        "max_n_ticks": 4,
    }
    # corner sets the margins itself, which the constrained layout of the lab's style would undo
    with plt.rc_context({"figure.constrained_layout.use": False}):
        fig = corner(values, labels=list(map(title, labels)), fig=fig, **settings | options)
    left_out = f" ({np.sum(~complete)} incomplete left out)" if not complete.all() else ""
    fig.suptitle(f"{len(values)} stars, {survey.title}{left_out}", x=0.7, y=0.96)
    return fig


def chip_panels(wavelength: ArrayLike, rows: int = 1, **options: Any) -> tuple[Figure, np.ndarray]:
    """
    A figure with one column of panels per detector chip, as wide as the chip.

    Parameters
    ----------
    wavelength : array_like of shape (n_pixel,)
        Grid in Angstrom, which `labtools.spectra.chips` divides into chips.
    rows : int
        Rows of panels; the y axis is shared along a row.
    **options
        For `pyplot.subplots`.

    Returns
    -------
    figure : Figure
    axs : ndarray of Axes, shape (rows, chips)

    Examples
    --------
    >>> figure, axs = chip_panels([15000.0, 15001.0, 15002.0, 15500.0, 15501.0], rows=2)
    >>> axs.shape
    (2, 2)
    """
    wavelength = np.asarray(wavelength)
    ends = [tuple(wavelength[[chip.start, chip.stop - 1]]) for chip in chips(wavelength)]
    fig, axs = plt.subplots(
        rows,
        len(ends),
        sharex="col",
        sharey="row",
        squeeze=False,
        width_ratios=[last - first for first, last in ends],
        **options,
    )
    for column, limits in zip(axs.T, ends, strict=True):
        column[0].set(xlim=limits)
    axs[-1, len(ends) // 2].set(xlabel=WAVELENGTH_TITLE)
    return fig, axs


def plot_curve(
    wavelength: ArrayLike, values: ArrayLike, axs: Axes | np.ndarray, **style: Any
) -> None:
    """
    Values against wavelength, with a break at the gaps between chips.

    Parameters
    ----------
    wavelength, values : array_like of shape (n_pixel,)
        Wavelength in Angstrom, and what is drawn against it.
    axs : Axes or array of Axes
        The whole curve is drawn on each of them.
    **style
        For `Axes.plot`.

    Examples
    --------
    >>> figure, ax = plt.subplots()
    >>> plot_curve([15000.0, 15001.0, 15002.0, 15500.0, 15501.0], [1, 1, 1, 2, 2], ax)
    >>> ax.lines[0].get_ydata()
    array([ 1.,  1.,  1., nan,  2.,  2.])
    """
    # A NaN before the first pixel of each further chip breaks the line
    starts = [chip.start for chip in chips(wavelength)][1:]
    x = np.insert(np.asarray(wavelength, float), starts, np.nan)
    y = np.insert(np.asarray(values, float), starts, np.nan)
    for ax in np.atleast_1d(np.asarray(axs, object)).flat:
        ax.plot(x, y, **{"lw": 0.8} | style)


def plot_spectrum(spectra: xr.Dataset, star: str, ax: Axes | None = None, **style: Any) -> Axes:
    """
    The flux of one star against wavelength, without its unusable pixels.

    Parameters
    ----------
    spectra : Dataset
        `flux` and `error` over (star, wavelength in Angstrom).
    star : str
        Which star to draw.
    ax : Axes, optional
    **style
        For `Axes.plot`.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the star is not among the spectra.

    Examples
    --------
    >>> figure, ax = plt.subplots()
    >>> spectra = xr.Dataset(
    ...     {"flux": (("star", "wavelength"), [[1.0, 9.0, 1.0]]),
    ...      "error": (("star", "wavelength"), [[0.1, np.inf, 0.1]])},
    ...     coords={"star": ["2M01"], "wavelength": [15000.0, 15001.0, 15002.0]},
    ... )
    >>> plot_spectrum(spectra, "2M01", ax).lines[0].get_ydata()
    array([ 1., nan,  1.])
    """
    ax = ax or plt.gca()
    one = by_star(spectra).sel(star=star)
    plot_curve(one.wavelength, one.flux.where(np.isfinite(one.error)), ax, **style)
    ax.set(xlabel=WAVELENGTH_TITLE)
    return ax


def plot_kiel(
    labels: pd.DataFrame,
    survey: Titled,
    isochrones: Iterable[pd.DataFrame] = (),
    ax: Axes | None = None,
) -> Axes:
    """
    Kiel diagram: log g against Teff of many stars, colored by [Fe/H], and isochrones on top.

    Parameters
    ----------
    labels : DataFrame
        One row per star: `teff` (K), `logg`, `fe_h` (dex).
    survey : object with a `title`
        The source of the stars, for the title of the axes.
    isochrones : iterable of DataFrame
        Tables of `labtools.isochrones`. Each is drawn in the color of its [Fe/H]: the giant branch
        as a line, helium burning dotted, from where it has become steady and without the quick
        descent from the tip.
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> figure, ax = plt.subplots()
    >>> labels = pd.DataFrame({"teff": [4700.0], "logg": [2.5], "fe_h": [-0.1]})
    >>> plot_kiel(labels, SimpleNamespace(title="simulated survey"), ax=ax).get_title()
    '1 stars, simulated survey'
    """
    ax = ax or plt.gca()
    labels = native_byte_order(labels)
    dots = ax.scatter(
        labels.teff, labels.logg, c=labels.fe_h, s=10, lw=0, vmin=-1, vmax=0.5, rasterized=True
    )
    # Lines have the colors of the stars beneath them: a black edge tells them apart
    outline = [withStroke(linewidth=3, foreground="k")]
    for table in isochrones:
        age, fe_h = table.age.iloc[0], table.feh_init.iloc[0]
        name = f"{age:.0f} Gyr, [Fe/H] = {fe_h:+.1f}: {table.attrs['source']}"
        giant_branch = table.where(table.phase == 2)  # NaN elsewhere, so that the line is broken
        helium = table.where((table.phase == 3) & (table.eep >= STEADY_HELIUM_BURNING))
        for part, style, label in ((giant_branch, "-", name), (helium, ":", None)):
            ax.plot(
                part.teff,
                part.log_g,
                style,
                lw=2,
                label=label,
                color=dots.to_rgba(fe_h),
                path_effects=outline,
            )
    ax.set(xlabel=title("teff"), ylabel=title("logg"), xlim=(5600, 3300), ylim=(4, 0))
    ax.set_title(f"{len(labels)} stars, {survey.title}")
    if ax.get_legend_handles_labels()[1]:
        ax.plot([], [], ":", color="0.4", label="helium burns in the core")  # of all isochrones
        ax.legend(loc="lower right")
    plt.colorbar(dots, ax=ax, label=title("fe_h"))
    return ax


def plot_offset(
    spectra: xr.DataArray,
    names: Sequence[str],
    ax: Axes | None = None,
    dashed: Sequence[bool] | np.ndarray = (),
    step: float = 0.4,
) -> Axes:
    """
    Spectra one above the other, each with its name at the right end.

    Parameters
    ----------
    spectra : DataArray
        Normalized flux over (star, wavelength in Angstrom).
    names : sequence of str
        One per spectrum.
    ax : Axes, optional
    dashed : sequence of bool
        Which spectra to draw dashed; none by default.
    step : float
        Distance of neighboring spectra in normalized flux.

    Returns
    -------
    Axes

    Examples
    --------
    >>> figure, ax = plt.subplots()
    >>> flux = xr.DataArray(
    ...     np.ones((2, 3)), dims=("star", "wavelength"), coords={"wavelength": [1e4, 1.1e4, 1.2e4]}
    ... )
    >>> plot_offset(flux, ["dwarf", "giant"], ax).lines[1].get_ydata()
    array([1.4, 1.4, 1.4])
    """
    ax = ax or plt.gca()
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.8, len(spectra)))
    is_dashed = np.asarray(dashed) if len(dashed) else np.zeros(len(spectra), bool)
    for number, (flux, name, color) in enumerate(zip(spectra, names, colors, strict=True)):
        style = "--" if is_dashed[number] else "-"
        ax.plot(spectra.wavelength, flux + step * number, style, color=color, lw=1.1)
        ax.annotate(
            name,
            (1.01, 1 + step * number),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10,
        )
    ends = spectra.wavelength.values[[0, -1]]
    ax.set(xlim=ends, xlabel=WAVELENGTH_TITLE, ylabel=f"normalized flux + {step} per step")
    return ax


def mark_lines(lines: pd.DataFrame, ax: Axes | None = None, top: bool = True) -> Axes:
    """
    Mark spectral lines at their wavelengths, one color and one entry of the legend per species.

    Parameters
    ----------
    lines : DataFrame
        `species` and `wavelength` (Angstrom, vacuum); lines outside the x limits are left out.
    ax : Axes, optional
        Its x limits must have been set.
    top : bool
        Short ticks at the upper edge, over the spectrum; otherwise dashed lines across the panel.

    Returns
    -------
    Axes

    Examples
    --------
    >>> figure, ax = plt.subplots()
    >>> _ = ax.set(xlim=(15740, 15780))
    >>> lines = pd.DataFrame({"species": ["Mg I", "Mg I"], "wavelength": [15753.3, 15770.2]})
    >>> mark_lines(lines, ax).get_legend_handles_labels()[1]
    ['Mg I']
    """
    ax = ax or plt.gca()
    lowest = 0.94 if top else 0.0
    style: dict[str, Any] = {"lw": 2} if top else {"lw": 0.9, "ls": "--", "zorder": 0}
    inside = lines[lines.wavelength.between(*sorted(ax.get_xlim()))]
    for species, group in inside.groupby("species", sort=False):
        color = ELEMENT_COLORS.get(species, "0.5")
        for number, wavelength in enumerate(group.wavelength):
            label = species if number == 0 else None
            ax.axvline(wavelength, lowest, color=color, label=label, **style)
    return ax


def plot_one_to_one(
    fitted: pd.DataFrame,
    reference: pd.DataFrame,
    label: str,
    axs: Sequence[Axes] | np.ndarray,
    color: pd.Series | np.ndarray | None = None,
    note: str = "",
) -> Sequence[Axes] | np.ndarray:
    """
    Fitted against reference values of one label, and their difference below.

    Parameters
    ----------
    fitted, reference : DataFrame
        Labels indexed by star; each star of the first is looked up in the second.
    label : str
        Column that is compared.
    axs : two Axes
        For the values and for the differences.
    color : Series or ndarray of shape (n_star,), optional
        A number for each row of `fitted`; the largest are drawn on top.
    note : str
        For the corner of the upper panel.

    Returns
    -------
    two Axes
        Those that were given.

    Raises
    ------
    KeyError
        If the reference lacks a star.

    Examples
    --------
    >>> figure, axs = plt.subplots(2, sharex=True)
    >>> fitted = pd.DataFrame({"teff": [4710.0, 5010.0]}, index=["2M01", "2M02"])
    >>> catalog = pd.DataFrame({"teff": [5000.0, 4700.0]}, index=["2M02", "2M01"])
    >>> _, lower = plot_one_to_one(fitted, catalog, "teff", axs)
    >>> lower.collections[0].get_offsets().data[:, 1]
    array([10., 10.])
    """
    upper, lower = axs
    fitted, reference = native_byte_order(fitted), native_byte_order(reference)
    order = np.arange(len(fitted)) if color is None else np.argsort(color, kind="stable")
    stars = fitted.index[order]
    x, y = reference.loc[stars, label], fitted.loc[stars, label]
    style: Mapping[str, Any] = {
        "c": None if color is None else np.asarray(color)[order],
        "s": 9,
        "lw": 0.2,
        "edgecolors": "k",
        "rasterized": True,
    }
    upper.scatter(x, y, **style)
    lower.scatter(x, y - x, **style)
    upper.axline((x.median(), x.median()), slope=1, color="k", lw=0.8)
    upper.text(0.96, 0.04, note, transform=upper.transAxes, ha="right", fontsize=10)
    lower.axhline(0, color="k", lw=0.8)
    upper.set(ylabel=f"fitted {title(label)}")
    lower.set(
        xlabel=f"catalog {title(label)}", ylabel=f"fitted − catalog [{UNITS.get(label, 'dex')}]"
    )
    return axs
