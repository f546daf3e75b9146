"""Figures that more than one notebook draws. Nothing is computed here."""

import re

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import display
from matplotlib.patheffects import withStroke

from labtools.spectra import chips

__all__ = [
    "TITLES", "UNITS", "chip_panels", "mark_lines", "plot_corner", "plot_curve", "plot_kiel", "plot_offset",
    "plot_one_to_one", "plot_spectrum", "show", "title",
]  # fmt: skip

TITLES = {
    "teff": r"$T_{\rm eff}$", "logg": r"$\log g$", "fe_h": "[Fe/H]", "mg_fe": "[Mg/Fe]", "si_fe": "[Si/Fe]",
    "alpha_m": r"[$\alpha$/M]",
}  # fmt: skip
UNITS = {"teff": "K"}
ELEMENT_COLORS = {"Mg I": "C1", "Si I": "C2", "Fe I": "C0", "Al I": "C3", "Ca I": "C4", "H I": "C6"}


def title(label):
    """Name of a label with its unit, for an axis."""
    return f"{TITLES.get(label, label)} [{UNITS.get(label, 'dex')}]"


def show(figure, alt):
    """Show a figure as a still picture, with a text for those who do not see it, and close it.

    alt : a sentence or two, with the decisive numbers; TeX between dollars becomes plain ("Teff").
    """
    if get_ipython() is None:
        plt.show()
    else:
        plain = re.sub(r"\$(.*?)\$", lambda tex: re.sub(r"\\rm |[\\{}_]", "", tex[1]), alt)
        picture = {"image/png": print_figure(figure, base64=True), "text/plain": repr(figure)}
        display(picture, raw=True, metadata={"image/png": {"alt": plain}})
    plt.close(figure)


def plot_corner(labels, survey, fig=None, **options):
    """Corner plot of a DataFrame of labels; contours hold 39 % and 86 % of the points (1 and 2 sigma in 2-D)."""
    from corner import corner  # which imports arviz and bokeh: seconds

    settings = {
        "levels": (0.393, 0.865),
        "color": "#0072B2",
        "hist_kwargs": {"lw": 1.2},
        "bins": 30,
        "smooth": 0.8,
    }
    with plt.rc_context({"figure.constrained_layout.use": False}):
        fig = corner(
            labels.to_numpy(float), labels=list(map(title, labels)), fig=fig, **settings | options
        )
    fig.suptitle(f"{len(labels)} stars, {survey.title}", x=0.7, y=0.96)
    return fig


def chip_panels(wavelength, rows=1, **options):
    """Figure and axes (rows, chips): a panel a chip of a wavelength grid (Angstrom), the y axis shared along a row."""
    ends = [
        tuple(np.asarray(wavelength)[[chip.start, chip.stop - 1]]) for chip in chips(wavelength)
    ]
    fig, axs = plt.subplots(
        rows,
        len(ends),
        sharex="col",
        sharey="row",
        squeeze=False,
        width_ratios=[b - a for a, b in ends],
        **options,
    )
    for column, limits in zip(axs.T, ends, strict=True):
        column[0].set(xlim=limits)
    axs[-1, len(ends) // 2].set(xlabel="vacuum wavelength [Å]")
    return fig, axs


def plot_curve(wavelength, values, axs, **style):
    """Values against wavelength (Angstrom), on one or several axes, with a break at the gaps between chips."""
    starts = [chip.start for chip in chips(wavelength)][1:]
    x, y = (np.insert(np.asarray(column, float), starts, np.nan) for column in (wavelength, values))
    for ax in np.ravel(axs):
        ax.plot(x, y, **{"lw": 0.8} | style)


def plot_spectrum(spectra, star, ax=None, **style):
    """One star's flux against wavelength (Angstrom), without its unusable pixels."""
    ax = ax or plt.gca()
    one = spectra.sel(star=star)
    plot_curve(one.wavelength, one.flux.where(np.isfinite(one.error)), ax, **style)
    ax.set(xlabel="vacuum wavelength [Å]")
    return ax


def plot_kiel(labels, survey, isochrones=(), ax=None):
    """Kiel diagram: log g against Teff of a DataFrame of labels, coloured by [Fe/H], and isochrones on top.

    isochrones : tables of `labtools.isochrones`, in the colour of their [Fe/H]; helium burning is dotted, from where
    it has become steady (EEP 631, Dotter 2016), without the quick way down from the tip.
    """
    ax = ax or plt.gca()
    dots = ax.scatter(
        labels.teff, labels.logg, c=labels.fe_h, s=10, lw=0, vmin=-1, vmax=0.5, rasterized=True
    )
    for one in isochrones:
        name = f"{one.age.iloc[0]:.0f} Gyr, [Fe/H] = {one.feh_init.iloc[0]:+.1f}: {one.attrs['source']}"
        color, outline = (
            dots.to_rgba(one.feh_init.iloc[0]),
            [withStroke(linewidth=3, foreground="k")],
        )
        for number, first, style in ((2, 0, "-"), (3, 631, ":")):
            part = one.where((one.phase == number) & (one.eep >= first))
            label = name if number == 2 else None
            ax.plot(
                part.teff, part.log_g, style, lw=2, label=label, color=color, path_effects=outline
            )
    ax.set(xlabel=title("teff"), ylabel=title("logg"), xlim=(5600, 3300), ylim=(4, 0))
    ax.set_title(f"{len(labels)} stars, {survey.title}")
    ax.legend(loc="lower right")
    plt.colorbar(dots, ax=ax, label=title("fe_h"))
    return ax


def plot_offset(spectra, names, ax=None, dashed=(), step=0.4):
    """Spectra (star, wavelength) one above the other, `step` apart, each with its name at the right end.

    dashed : which of them to draw dashed, one truth value a star; none by default.
    """
    ax = ax or plt.gca()
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.8, len(spectra)))
    for number, (flux, name, color) in enumerate(zip(spectra, names, colors, strict=True)):
        style = "--" if len(dashed) and np.asarray(dashed)[number] else "-"
        ax.plot(spectra.wavelength, flux + step * number, style, color=color, lw=1.1)
        ax.annotate(
            name,
            (1.01, 1 + step * number),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10,
        )
    ends = spectra.wavelength.values[[0, -1]]
    ax.set(xlim=ends, xlabel="vacuum wavelength [Å]", ylabel=f"normalized flux + {step} a step")
    return ax


def mark_lines(lines, ax=None, top=True):
    """Lines at their vacuum wavelengths: a DataFrame with species and wavelength (Angstrom).

    top : short ticks at the upper edge, over the spectrum; otherwise dashed lines across the whole panel.
    """
    ax = ax or plt.gca()
    low, style = (0.94, {"lw": 2}) if top else (0, {"lw": 0.9, "ls": "--", "zorder": 0})
    inside = lines[lines.wavelength.between(*ax.get_xlim())]
    for species, group in inside.groupby("species", sort=False):
        color = ELEMENT_COLORS.get(species, "0.5")
        for number, wavelength in enumerate(group.wavelength):
            ax.axvline(wavelength, low, color=color, label=None if number else species, **style)
    return ax


def plot_one_to_one(fitted, reference, label, axs, color=None, note=""):
    """Fitted against reference values of one label, and their difference, on two axes.

    color : a number for each star; the largest are drawn on top. note : text for the corner of the upper panel.
    """
    upper, lower = axs
    stars = fitted.index if color is None else fitted.index[np.argsort(color, kind="stable")]
    x, y = reference.loc[stars, label], fitted.loc[stars, label]
    style = {
        "c": None if color is None else np.sort(color),
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
