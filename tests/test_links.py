"""Links of notebooks and pages, as far as no network is needed: their form, and that a DOI is of
the journal named."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(
        ROOT / name / "README.md"
        for name in ("data", "packages/mock_survey/data", "packages/apogee_archive/data")
    ),
    *sorted(ROOT.glob("docs/*.md")),
]
NOTEBOOKS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))
HOST = re.compile(r"(?!.*\.\.)[a-z0-9-]+(\.[a-z0-9-]+)+")
PATHS = {
    "arxiv.org": re.compile(r"/abs/(\d{4}\.\d{4,5}|[a-z-]+/\d{7})"),
    "doi.org": re.compile(
        r"/(10\.1088/\d{4}-\d{3}[\dX](/\d+){3}"  # AAS journals until 2016
        r"|10\.3847/\d{4}-\d{3}[\dX]((/\d+){3}|/a[a-f0-9]{5})"  # and since
        r"|10\.1086/\d{6}"  # and before 2009
        r"|10\.1051/\d{4}-\d{4}/\d{9}"  # A&A
        r"|10\.1070/SM\d{4}v\d{3}n\d{2}ABEH\d{6}"  # Mathematics of the USSR
        r"|10\.1093/mnras/[a-z]{2,3}\d{3,4}"
        r"|10\.1111/j\.\d{4}-\d{4}\.\d{4}\.tb\d{5}\.x)"
    ),
}
JOURNALS = {
    "AJ": ("0004-6256", "1538-3881"), "ApJ": ("0004-637X", "1538-4357"), "ApJS": ("0067-0049", "1538-4365"),
    "MNRAS": ("mnras",),
}  # fmt: skip


def text_of(path):
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n\n".join(
        cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"
    )


def links_of(path):
    """Addresses of a page: those in parentheses, and bare ones without the full stop that ends
    their sentence."""
    text = text_of(path)
    bare = re.findall(r"(?<![(\w])https?://[^\s)>`\"]+", text)
    return re.findall(r"\]\(\s*(https?:[^)]*)\)", text) + [link.rstrip(".,;") for link in bare]


@pytest.mark.parametrize(
    "path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_links_have_the_form_of_an_address(path):
    for link in links_of(path):
        parts = urlsplit(link)
        assert parts.scheme == "https", link
        assert HOST.fullmatch(parts.netloc), link
        assert not re.search(r"\s", link), link
        if known := PATHS.get(parts.netloc):
            assert known.fullmatch(parts.path), link


def test_a_doi_is_of_the_journal_volume_and_page_that_stand_beside_it():
    cited = r"\]\(https://doi\.org/([^)]+)\)\s+\((AJ|ApJ|ApJS|MNRAS)\s+(\d+),\s+(\d+)\)"
    found = [groups for path in [*PAGES, *NOTEBOOKS] for groups in re.findall(cited, text_of(path))]
    assert len(found) >= 10
    for doi, journal, volume, page in found:
        _, name, *rest = doi.split("/")
        assert name in JOURNALS[journal], doi
        if len(rest) == 3:
            assert (rest[0], rest[2]) == (volume, page), doi
