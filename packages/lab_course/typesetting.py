"""A student's Markdown, with its formulas in TeX, as source for typst.

Markdown is read by markdown-it; what it calls text becomes a string of typst, in which no character
has a meaning of its own. Formulas are translated command by command; one that is not known stays as
it was written, so that nothing is printed that a student did not mean.
"""

import re

import typst
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.dollarmath import dollarmath_plugin

__all__ = ["quoted", "to_typst", "typeset_safely"]

READER = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)

SYMBOLS = {
    "le": "<=", "leq": "<=", "ge": ">=", "geq": ">=", "ne": "!=", "neq": "!=", "ll": "<<",
    "gg": ">>", "lesssim": "lt.tilde", "gtrsim": "gt.tilde", "sim": "tilde.op",
    "simeq": "tilde.eq", "approx": "approx", "equiv": "equiv", "propto": "prop", "in": "in",
    "pm": "plus.minus", "mp": "minus.plus", "times": "times", "cdot": "dot.op", "ast": "*",
    "odot": "dot.o", "oplus": "plus.o", "star": "star", "circ": "compose", "prime": "prime",
    "sum": "sum", "prod": "product", "int": "integral", "infty": "infinity", "partial": "∂",
    "nabla": "nabla", "to": "->", "rightarrow": "->", "leftarrow": "<-", "Rightarrow": "=>",
    "leftrightarrow": "<->", "langle": "⟨", "rangle": "⟩", "ldots": "dots.h",
    "dots": "dots.h", "cdots": "dots.h.c", "quad": "quad", "qquad": "wide", "ell": "ell",
    "hbar": "ℏ", "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "||",
    "varepsilon": "epsilon", "epsilon": "epsilon.alt", "varphi": "phi", "phi": "phi.alt",
    "vartheta": "theta.alt", "log": "log", "ln": "ln", "exp": "exp", "sin": "sin", "cos": "cos",
    "tan": "tan", "max": "max", "min": "min", "det": "det", "arg": "arg", "lim": "lim",
    ",": "thin", ":": "med", ";": "thick", "!": "", " ": "space", "%": '"%"', "&": '"&"',
    "$": '"$"', "#": '"#"', "_": '"_"', "{": "{", "}": "}", "|": "||", "\\": "\\ ",
}  # fmt: skip
"""Commands of TeX without an argument, and the same in typst."""
SAME = {
    *("alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"),
    *("nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "chi", "psi", "omega", "Gamma", "Delta"),
    *("Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
}
"""Commands that have the same name in both."""

WITH_ARGUMENT = {
    "sqrt": "sqrt", "mathbf": "bold", "boldsymbol": "bold", "bm": "bold", "mathcal": "cal",
    "mathbb": "bb", "mathit": "italic", "hat": "hat", "widehat": "hat", "bar": "overline",
    "overline": "overline", "tilde": "tilde", "widetilde": "tilde", "vec": "arrow", "dot": "dot",
    "ddot": "dot.double", "underline": "underline",
}  # fmt: skip
UPRIGHT = ("mathrm", "text", "textrm", "textbf", "textit", "operatorname", "rm")
SIZES = ("left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle")
ESCAPED = {"(": "\\(", ")": "\\)", ",": "\\,", ";": "\\;", "/": "slash", "#": "\\#", '"': '\\"'}
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.S)


class _NotTranslated(ValueError):
    """A formula that this module cannot translate."""


def to_typst(markdown: str) -> str:
    """Markdown, with its TeX, as typst.

    Parameters
    ----------
    markdown : str
        Paragraphs, emphasis, lists, tables, code and links; formulas between ``$`` or ``$$``.

    Returns
    -------
    str
        Source that can stand in a document of typst.

    Examples
    --------
    >>> to_typst("16 K in $T_{\\\\rm eff}$, *not* 3 K")
    '#"16 K in ";$T_("eff")$#", ";#emph[#"not";]#" 3 K";'
    """
    return "\n\n".join(map(_block, SyntaxTreeNode(READER.parse(markdown)).children))


def typeset_safely(markdown: str) -> str:
    """As `to_typst`; what typst cannot typeset is printed as it was written.

    Examples
    --------
    >>> typeset_safely("a **good** star")
    '#"a ";#strong[#"good";]#" star";'
    """
    source = to_typst(markdown)
    try:
        typst.compile(source.encode())
    except typst.TypstError:
        return f"#{quoted(markdown)};"
    return source


def quoted(text: str) -> str:
    """Text as a string of typst, with its quotation marks."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _block(node):
    """A paragraph, list, table or the like."""
    inside = "".join
    if node.type in ("paragraph", "inline"):
        return inside(map(_block if node.type == "paragraph" else _inline, node.children))
    if node.type == "heading":
        return f"#strong[{inside(map(_block, node.children))}]"
    if node.type in ("bullet_list", "ordered_list"):
        kind = "list" if node.type == "bullet_list" else "enum"
        items = ("\n\n".join(map(_block, item.children)) for item in node.children)
        return f"#{kind}({', '.join(f'[{item}]' for item in items)})"
    if node.type == "blockquote":
        quote = "\n\n".join(map(_block, node.children))
        return f"#quote(block: true)[{quote}]"
    if node.type == "table":
        rows = [row for part in node.children for row in part.children]
        cells = [f"[{inside(map(_block, cell.children))}]" for row in rows for cell in row.children]
        columns = len(rows[0].children)
        return f"#table(columns: {columns}, stroke: 0.4pt, {', '.join(cells)})"
    if node.type.startswith("math_block"):
        return _formula(node.content, display=True)
    if node.type == "hr":
        return "#line(length: 100%)"
    if node.type in ("fence", "code_block"):
        return f"#raw(block: true, {quoted(node.content)})"
    return f"#{quoted(node.content)};"  # such as HTML, which stays what it is


def _inline(node):
    """A piece of a paragraph."""
    if node.type == "math_inline":
        return _formula(node.content, display=False)
    if node.type == "math_inline_double":
        return _formula(node.content, display=True)
    if node.type in ("em", "strong"):
        name = {"em": "emph", "strong": "strong"}[node.type]
        return f"#{name}[{''.join(map(_inline, node.children))}]"
    if node.type == "code_inline":
        return f"#raw({quoted(node.content)});"
    if node.type == "hardbreak":
        return "#linebreak();"
    if node.type == "softbreak":
        return " "
    if node.children:  # a link, of which the text stays
        return "".join(map(_inline, node.children))
    return f"#{quoted(node.content)};"


def _formula(tex, display):
    """A formula of TeX as one of typst; as it was written where it is not understood."""
    try:
        inside = _Formula(tex).all()
    except _NotTranslated:
        return f"#raw({quoted(f'${tex}$')});"
    return f"$ {inside} $" if display else f"${inside}$"  # blanks inside make it a display


class _Formula:
    """TeX that is read from left to right."""

    def __init__(self, tex):
        self.tokens = TOKEN.findall(tex)

    def all(self):
        found = self.until(None)
        if self.tokens:
            raise _NotTranslated("a brace closes that was not opened")
        return found

    def until(self, end):
        """All up to a token, which is taken away; None stands for the end of the formula."""
        parts = []
        while self.tokens and self.tokens[0] != "}":
            if self.tokens[0] == end:
                break
            script = self.tokens[0] in ("^", "_", "'")
            part = self.one()
            if not part:  # a blank, or a size
                continue
            # A letter or number may not touch the one before; a script must touch its base
            parts.append(part if script and parts else '""' + part if script else " " + part)
        if end is not None:
            if not self.tokens or self.tokens[0] != end:
                raise _NotTranslated(f"no {end}")
            self.tokens.pop(0)
        return "".join(parts).strip()

    def argument(self):
        """What stands in braces, or the next symbol."""
        while self.tokens and self.tokens[0].isspace():
            self.tokens.pop(0)
        if not self.tokens:
            raise _NotTranslated("an argument is missing")
        if self.tokens[0] == "{":
            self.tokens.pop(0)
            return self.until("}")
        return self.one()

    def words(self):
        """What stands in braces as text, or the word that follows."""
        while self.tokens and self.tokens[0].isspace():
            self.tokens.pop(0)
        text = ""
        if self.tokens and self.tokens[0] == "{":
            self.tokens.pop(0)
            while self.tokens and self.tokens[0] != "}":
                text += self.tokens.pop(0)
            if not self.tokens:
                raise _NotTranslated("no }")
            self.tokens.pop(0)
        else:  # \rm eff: to the end of the group
            while self.tokens and self.tokens[0][0] not in "\\}^_":
                text += self.tokens.pop(0)
        return quoted(text.replace("\\", "").strip())

    def one(self):
        """The next symbol, command or group."""
        token = self.tokens.pop(0)
        if token.isspace():
            return ""
        if token == "{":
            return self.until("}")
        if token in ("^", "_"):
            return f"{token}({self.argument()})"
        if not token.startswith("\\"):
            return ESCAPED.get(token, token)
        name = token[1:]
        if name in UPRIGHT:
            return self.words()
        if name in SIZES:
            if name in ("left", "right") and self.tokens and self.tokens[0] == ".":
                self.tokens.pop(0)
            return ""
        if name in ("frac", "dfrac", "tfrac"):
            return f"frac({self.argument()}, {self.argument()})"
        if name == "sqrt" and self.tokens and self.tokens[0] == "[":
            self.tokens.pop(0)
            return f"root({self.until(']')}, {self.argument()})"
        if name in WITH_ARGUMENT:
            return f"{WITH_ARGUMENT[name]}({self.argument()})"
        if name in SAME:
            return name
        if name in SYMBOLS:
            return SYMBOLS[name]
        raise _NotTranslated(f"\\{name}")
