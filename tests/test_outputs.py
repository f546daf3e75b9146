"""What is committed with the notebooks: every exemption has its reason, and JupyterLab has nothing
to change."""

import ast
import asyncio
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager

from run_notebooks import SPEC, WIDGET, without_bars

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
LANGUAGE = {
    "codemirror_mode",
    "file_extension",
    "mimetype",
    "name",
    "nbconvert_exporter",
    "pygments_lexer",
    "version",
}
MOST = 46  # cells in all notebooks whose outputs nbval does not compare: nearly all show trained networks (07)
named = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])


def marked():
    """All cells with a tag of nbval: notebook, cell, tags, and the reason, which stands beside the
    tags."""
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            tags = [tag for tag in cell.metadata.get("tags", []) if tag.startswith("nbval")]
            if tags:
                yield path.stem, cell, tags, cell.metadata.get("reason", "")


def test_exemptions_are_known_kinds_with_a_reason():
    """The reason is the text `reason` in the metadata of a cell, beside its tags."""
    silent = [
        f"{stem}: {cell.source[:50]!r} {tags}"
        for stem, cell, tags, reason in marked()
        if len(reason) < 15
    ]
    assert not silent, "no reason for " + "\n".join(silent)
    kinds = re.compile(r"nbval-(ignore-output|rounded|within-\d+-percent)")
    assert not [tags for _, _, tags, _ in marked() if not all(map(kinds.fullmatch, tags))]


def test_few_cells_are_exempt():
    ignored = [
        f"{stem}: {reason}" for stem, _, tags, reason in marked() if "nbval-ignore-output" in tags
    ]
    assert len(ignored) <= MOST, "\n".join(ignored)
    wide = [tag for _, _, tags, _ in marked() for tag in tags if re.search(r"within-\d{3}", tag)]
    assert not wide, "a tolerance of 100 % and more compares nothing"


@named
def test_metadata_are_what_jupyterlab_writes(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == SPEC
    assert set(notebook.metadata.language_info) == LANGUAGE
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.nbformat_minor == 5
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@named
def test_opening_and_saving_changes_no_byte(path, tmp_path):
    """By the contents API of the server that is behind JupyterLab."""
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())

    async def open_and_save():
        manager = AsyncFileContentsManager(root_dir=str(tmp_path))
        model = await manager.get(path.name)
        await manager.save(model, path.name)

    asyncio.run(open_and_save())
    assert copy.read_bytes() == path.read_bytes()


@named
def test_no_bar_is_committed(path):
    for cell in nbformat.read(path, 4).cells:
        outputs = cell.get("outputs", [])
        assert list(without_bars(outputs)) == outputs, cell.source
        assert not [out for out in outputs if WIDGET in out.get("data", {})]


def loose_sorts(source):
    """Calls that order rows and say nothing about ties; what is unique has none, and sorted values
    show none."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        unique = (
            isinstance(node.func.value, ast.Call)
            and getattr(node.func.value.func, "attr", "") == "unique"
        )
        stable = any(word.arg in ("kind", "stable") for word in node.keywords)
        if (
            node.func.attr in ("argsort", "sort_values", "argpartition", "topk")
            and not stable
            and not unique
        ):
            yield ast.unparse(node)


def test_loose_sorts_are_found():
    assert (
        len(
            list(
                loose_sorts(
                    "np.argsort(x); t.sort_values('a'); x.argpartition(3); torch.topk(x, 3)"
                )
            )
        )
        == 4
    )
    assert not list(
        loose_sorts("np.argsort(x, kind='stable'); x.unique().sort_values(); np.sort(x); sorted(x)")
    )


def test_order_never_depends_on_the_processor():
    """Ties: every sort of rows is stable, because others order ties by the processor's vector
    unit."""
    sources = {
        path: path.read_text()
        for folder in ("labtools", "tools")
        for path in (ROOT / folder).rglob("*.py")
    }
    for path in NOTEBOOKS:
        code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        sources[path] = "\n".join(code)
    loose = [
        f"{path.name}: {call}" for path, source in sources.items() for call in loose_sorts(source)
    ]
    assert not loose, "\n".join(loose)
