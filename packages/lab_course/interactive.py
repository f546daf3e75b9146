"""Interactive figures: labels, masks, continuum and scatter under sliders (ipywidgets, ipympl).

In JupyterLab they are widgets; where widgets cannot run (nbval, GitHub, PDF) the same object shows
as a still figure.
"""

import base64
import io
import re
import warnings

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from labtools.continuum import normalize
from labtools.plots import TITLES, UNITS
from labtools.spectra import LAB_BITS, PixMask, chips

backend = mpl.get_backend()
from ipympl.backend_nbagg import Canvas, FigureManager  # noqa: E402

mpl.use(backend)  # for ipympl's import makes widgets of all figures of pyplot

__all__ = ["Explorer", "explore_mask", "explore_scatter", "explore_spectrum"]

DIGITS = {"teff": ".0f"}


class Explorer(widgets.VBox):
    """A figure with controls above it, drawn anew by `draw(**values)` when one of them moves.

    Only the artists `moving` are drawn again, on a picture of the rest, unless one of the controls
    in `reframe` moved.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    controls : dict of str to widget
        Widgets with a `value`.
    draw : callable
        Takes these values, changes the artists, returns a line of HTML to show below the figure.
    moving : list of Artist
        The artists that change.
    reframe : sequence of str
        Controls that change more than the moving artists.
    """

    def __init__(self, figure, controls, draw, moving, reframe=()):
        self.figure, self.controls, self.draw, self.moving = figure, controls, draw, moving
        self.text, self.background = widgets.HTML(), None
        for artist in moving:
            artist.set_animated(True)
        FigureManager(Canvas(figure), 0)
        figure.canvas.header_visible = figure.canvas.footer_visible = False
        figure.canvas.syncing_data_url = (
            False  # else ipympl 0.10 sends bare pixels as a PNG at first
        )
        figure.canvas.mpl_connect("draw_event", self._keep_background)
        for name, control in controls.items():
            control.observe(lambda _, reframe=name in reframe: self.redraw(reframe), "value")
        box = widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([box, figure.canvas, self.text])
        self.redraw(reframe=True)

    def redraw(self, reframe=False):
        """Draw the figure for the values that the controls have now."""
        self.text.value = self.draw(
            **{name: control.value for name, control in self.controls.items()}
        )
        # Axes and ticks cost most of the time: what moves is drawn on a kept picture of them
        if reframe or self.background is None:
            self.figure.canvas.draw()
        else:
            self.figure.canvas.restore_region(self.background)
            self._draw_moving()
        self.figure.canvas.blit()

    def _keep_background(self, _):
        self.background = self.figure.canvas.copy_from_bbox(self.figure.bbox)
        self._draw_moving()

    def _draw_moving(self):
        for artist in self.moving:
            artist.axes.draw_artist(artist)

    def _repr_mimebundle_(self, **kwargs):
        file = io.BytesIO()
        self.figure.savefig(file, format="png")
        still = {
            "image/png": base64.b64encode(file.getvalue()).decode(),
            "text/plain": "<Explorer>",
        }
        titles = ", ".join(filter(None, (ax.get_title() for ax in self.figure.axes)))
        alt = (
            f"A living figure as a still picture ({titles}). {re.sub('<.*?>', '', self.text.value)}"
        )
        return {**super()._repr_mimebundle_(**kwargs), **still}, {"image/png": {"alt": alt}}


def _slider(name, low, high, value, digits):
    layout = widgets.Layout(width="300px")
    return widgets.FloatSlider(
        value,
        min=low,
        max=high,
        step=(high - low) / 100,
        description=name,
        readout_format=digits,
        layout=layout,
    )


def _axes(**shape):
    """Axes of a figure whose layout is fixed: a layout engine would cost more than the rest."""
    figure = Figure(figsize=(9.5, 4.8), layout="none")
    figure.subplots_adjust(left=0.12, right=0.96, top=0.92, bottom=0.13, hspace=0.1, wspace=0.25)
    return figure, figure.subplots(**shape)


def explore_spectrum(cannon, spectra, labels, lines, survey, width=80.0):
    """The spectrum that the model predicts for labels under sliders, in a window that moves.

    Beneath it the most similar of the real stars, below both the gradient of one label. The model's
    curve turns grey where it extrapolates, and the line next to the cursor is named.

    Parameters
    ----------
    cannon : Cannon
        The model.
    spectra, labels : Dataset, DataFrame
        Normalized spectra, and labels, of the same stars, to compare with.
    lines : DataFrame
        With species, wavelength (Angstrom, vacuum) and ep (eV).
    survey : Survey
        Its title is printed.
    width : float
        Of the window, Angstrom.
    """
    names, wavelength = list(cannon.labels), cannon.wavelength
    scaled, span = (
        cannon.scaled(labels[names].to_numpy()),
        labels[names].agg(["min", "max", "median"]),
    )
    observed = np.where(np.isfinite(spectra.error.values), spectra.flux.values, np.float32(np.nan))
    figure, (upper, lower) = _axes(nrows=2, sharex=True, height_ratios=[2.2, 1])
    star = upper.plot([], [], color="k", lw=0.9)[0]
    model = upper.plot([], [], color="C1", lw=1.8)[0]
    slope = lower.plot([], [], color="C0", lw=1)[0]
    lower.axhline(0, color="k", lw=0.6)
    upper.set(ylim=(0.4, 1.15), ylabel="normalized flux")
    upper.set_title(
        f"The model (thick) and the most similar star (thin, black): {survey.title}", fontsize=11
    )
    lower.set(xlabel="vacuum wavelength [Å]")

    def draw(window, of, **values):
        point = pd.DataFrame([values], index=["model"])[names]
        inside = slice(*np.searchsorted(wavelength, [window, window + width]))
        nearest = np.argmin(np.linalg.norm(scaled - cannon.scaled(point.to_numpy()), axis=1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the colour says it
            flux, gradient = (
                cannon.predict(point).values[0],
                cannon.gradient(point).sel(label=of).values[0],
            )
        extrapolated = bool(np.asarray(cannon.extrapolates(point))[0])
        star.set_data(wavelength[inside], observed[nearest, inside])
        model.set(data=(wavelength[inside], flux[inside]), color="0.7" if extrapolated else "C1")
        slope.set_data(wavelength[inside], gradient[inside])
        lower.set(
            xlim=(window, window + width),
            ylabel=f"∂flux / ∂{TITLES.get(of, of)} [1/{UNITS.get(of, 'dex')}]",
        )
        lower.set_ylim(np.array([-1.1, 1.1]) * max(np.abs(gradient[inside]).max(initial=0), 1e-12))
        known = ", ".join(f"{n} {labels[n].iloc[nearest]:{DIGITS.get(n, '.2f')}}" for n in names)
        warning = " <b>The model extrapolates.</b>" if extrapolated else ""
        return f"Most similar star: {labels.index[nearest]} ({known}).{warning}"

    controls = {name: _slider(name, *span[name], DIGITS.get(name, ".2f")) for name in names}
    controls["window"] = _slider(
        "window [Å]", wavelength[0], wavelength[-1] - width, 16000.0, ".0f"
    )
    controls["of"] = widgets.Dropdown(options=names, description="gradient of")
    marker = upper.axvline(np.nan, color="0.4", lw=0.8, ls="--")
    note = upper.text(
        0, 0.98, "", transform=upper.get_xaxis_transform(), ha="center", va="top", fontsize=10
    )
    explorer = Explorer(
        figure, controls, draw, [star, model, slope, marker, note], ("window", "of")
    )
    figure.canvas.mpl_connect(
        "motion_notify_event", lambda event: _name_line(event, lines, marker, note, explorer)
    )
    return explorer


def _name_line(event, lines, marker, note, explorer, reach=1.0):
    """Name the line next to the cursor, if one is within `reach` (Angstrom)."""
    distance = np.abs(lines.wavelength - (event.xdata if event.inaxes else np.inf))
    line = lines.loc[distance.idxmin()] if distance.min() <= reach else None
    text = "" if line is None else f"{line.species} {line.wavelength:.1f}"
    if text != note.get_text():
        marker.set_xdata([np.nan if line is None else line.wavelength] * 2)
        note.set(x=0 if line is None else line.wavelength, text=text)
        explorer.redraw()


def explore_mask(raw, continuum_pixels, survey):
    """One raw spectrum, without the pixels of chosen bits, and its continuum of a chosen degree.

    Parameters
    ----------
    raw : Dataset
        Of one star, with flux, error and mask.
    continuum_pixels : DataArray
        As in `labtools.normalize`.
    survey : Survey
        Its title is printed.
    """
    figure, (upper, lower) = _axes(nrows=2, sharex=True, height_ratios=[1.5, 1])
    wavelength, flux, mask = raw.wavelength.values, raw.flux.values[0], raw.mask.values[0]
    recorded, ends = flux != 0, np.zeros(continuum_pixels.size, bool)
    ends[[chip.stop - 1 for chip in chips(continuum_pixels.wavelength)]] = (
        True  # where a curve breaks off
    )
    upper.plot(wavelength, np.where(recorded, flux, np.nan), color="0.55", lw=0.6)
    bad = upper.plot([], [], ".", color="C1", ms=3, label="masked")[0]
    curve = upper.plot([], [], color="C0", lw=1.6, label="pseudo-continuum")[0]
    result = lower.plot([], [], color="k", lw=0.6)[0]
    lower.axhline(1, color="C0", lw=0.8)
    lower.set(
        ylim=(0.4, 1.2),
        xlim=wavelength[[0, -1]],
        ylabel="normalized",
        xlabel="vacuum wavelength [Å]",
    )
    upper.set(ylim=np.nanpercentile(flux[recorded], [0.1, 99.9]) * (0.7, 1.2), ylabel="flux")
    upper.set_title(f"{raw.star.item()}, {survey.title}")
    upper.legend(loc="lower right", ncols=2)

    def draw(bits, degree):
        hit = (mask & sum(bits) != 0) & recorded
        known = np.where(np.isfinite(raw.error), raw.error, np.nanmedian(raw.error))
        error = np.where(hit[None] | ~recorded, np.inf, known)
        one = normalize(raw.assign(error=(raw.error.dims, error)), continuum_pixels, degree=degree)
        bad.set_data(wavelength[hit], flux[hit])
        curve.set_data(one.wavelength, np.where(ends, np.nan, one.continuum.values[0]))
        result.set_data(
            one.wavelength,
            np.where(np.isfinite(one.error.values[0]) & ~ends, one.flux.values[0], np.nan),
        )
        return f"{hit.sum()} of {recorded.sum()} recorded pixels are masked."

    chosen = [(f"{int(bit).bit_length() - 1} {bit.name}", int(bit)) for bit in PixMask]
    controls = {
        "bits": widgets.SelectMultiple(
            options=chosen, value=list(map(int, LAB_BITS)), description="bits", rows=6
        ),
        "degree": widgets.IntSlider(2, min=1, max=8, description="degree"),
    }
    return Explorer(figure, controls, draw, [bad, curve, result])


def explore_scatter(design, flux, error, title):
    """The fit of one pixel at a scatter s² under a slider: its residuals and its likelihood.

    Parameters
    ----------
    design : array (N, T)
        Design matrix of N stars.
    flux, error : array (N,)
        Of that pixel; a star of infinite error is left out.
    """
    good = np.isfinite(error)
    x, f, variance = design[good], flux[good], error[good] ** 2

    def solve(s2):
        w = 1 / (variance + s2)
        residual = f - x @ np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * f))
        return residual * np.sqrt(w), -0.5 * np.sum(w * residual**2 - np.log(w))

    powers = np.linspace(-8, -1, 141)
    heights = np.array([solve(10**power)[1] for power in powers])
    figure, (left, right) = _axes(ncols=2)
    left.plot(powers, heights - heights.max(), color="C0")
    dot = left.plot([], [], "o", color="C1")[0]
    left.set(xlabel="log$_{10}$ s²", ylabel=r"ln L − max ln L", title=title)
    edges = np.linspace(-6, 6, 61)
    centre = (edges[1:] + edges[:-1]) / 2
    right.plot(
        centre,
        0.2 * np.exp(-(centre**2) / 2) / np.sqrt(2 * np.pi),
        color="k",
        lw=1,
        label="unit normal",
    )
    bars = right.step(centre, centre * 0, where="mid", color="C1", label="residuals / √(σ²+s²)")[0]
    right.set(xlabel="residual in units of its noise", ylabel="share of stars", ylim=(0, 0.3))
    right.legend(loc="upper right", fontsize=9)

    def draw(power):
        pull, height = solve(10**power)
        dot.set_data([power], [height - heights.max()])
        bars.set_ydata(np.histogram(pull, edges)[0] / pull.size)
        width = 1.4826 * np.median(np.abs(pull))
        return f"s = {10 ** (power / 2):.4f}; the residuals have a width of {width:.2f}."

    slider = widgets.FloatSlider(-3, min=-8, max=-1, step=0.05, description="log10 s²")
    return Explorer(figure, {"power": slider}, draw, [dot, bars])
