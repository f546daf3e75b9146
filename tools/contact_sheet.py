"""One page with every figure of the executed notebooks: build/contact-sheet.html (make figures)."""

import argparse
import html
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGE = """<!doctype html><meta charset="utf-8"><title>All figures</title>
<style>
body {{ font: 14px sans-serif }}
figure {{ display: inline-block; width: 30%; margin: 1% }} img {{ width: 100% }}
</style>
{figures}"""


def figures(path):
    """Each figure of a notebook as HTML, with the heading it stands under."""
    heading = path.stem
    for number, cell in enumerate(nbformat.read(path, 4).cells):
        heading = next(
            (line.lstrip("# ") for line in cell.source.splitlines() if line.startswith("#")),
            heading,
        )
        for output in cell.get("outputs", []) if cell.cell_type == "code" else []:
            if picture := output.get("data", {}).get("image/png"):
                text = html.escape(f"{path.stem[:2]} [{number}] {heading}")
                alt = html.escape(output.metadata.get("image/png", {}).get("alt") or text)
                source = f"data:image/png;base64,{picture.strip()}"
                picture = f'<img src="{source}" alt="{alt}">'
                yield f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=ROOT / "notebooks",
        help="folder of executed notebooks",
    )
    found = [
        one
        for path in sorted(parser.parse_args().folder.glob("[0-9]*.ipynb"))
        for one in figures(path)
    ]
    target = ROOT / "build" / "contact-sheet.html"
    target.parent.mkdir(exist_ok=True)
    target.write_text(PAGE.format(figures="\n".join(found)))
    print(f"{len(found)} figures: {target}")


if __name__ == "__main__":
    main()
