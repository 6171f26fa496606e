"""Single-place errors made by rule: each is a small slip that a person could make, as exact text at one place.

Left alone: docstrings and other texts, annotations, imports, what is raised (its words), how pictures look, words on
the terminal, and keyword arguments of declarations. The sample is drawn within areas, from one seed, so that everyone
gets the same errors from the same code.
"""

import ast
import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

import areas

ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "*", "**": "*", "&": "|", "|": "&", "^": "&"}
COMPARISONS = {
    "<": ("<=", ">"),
    "<=": ("<", ">"),
    ">": (">=", "<"),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "in": ("not in",),
    "not in": ("in",),
    "is": ("is not",),
    "is not": ("is",),
}
PARTNERS = ("min max", "minimum maximum", "argmin argmax", "any all", "floor ceil", "zeros ones", "triu tril")
NAMES = {one: other for pair in PARTNERS for one, other in (pair.split(), pair.split()[::-1])}
SYMBOLS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.And: "and",
    ast.Or: "or",
}


# Calls on these are pictures and words; these keyword arguments change no result on a CPU.
COSMETIC = {"axes", "ax", "figure", "plt", "light_axes", "say", "print", "screen", "console", "cli"}
ON_DEVICES_ONLY = {"precision"}


class Error(NamedTuple):
    """One place of one file, and what stands there instead."""

    file: str
    start: int  # characters of the file
    end: int
    new: str
    kind: str


def errors(file: str, source: str) -> list[Error]:
    """Every error that the rules can make in this file, in the order of their places."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(line: int, column: int) -> int:
        text = source[lines[line - 1] : lines[line]]
        return lines[line - 1] + len(text.encode()[:column].decode())

    def span(node: ast.AST) -> tuple[int, int]:
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)  # type: ignore[attr]

    found = []
    for node in _sampled(ast.parse(source)):
        for start, end, new, kind in _slips(node, source, span):
            if source[start:end] != new:
                found.append(Error(file, start, end, new, kind))
    return sorted(set(found))


def _sampled(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, without texts, annotations, imports and what is raised."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
        return
    if isinstance(node, ast.Expr | ast.Call) and _root(node) in COSMETIC:
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    if isinstance(node, ast.Raise):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _sampled(child)


def _root(node: ast.AST) -> str | None:
    """The name on which a chain of calls and attributes begins: `axes` of `axes[0].plot(x)`."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript | ast.Expr):
            node = node.value
        else:
            return None
    return node.id


def _between(source: str, start: int, end: int, old: str, new: str):
    """The operator between two operands."""
    at = source[start:end].find(old)
    return () if at < 0 else ((start + at, start + at + len(old), new),)


def _slips(node: ast.AST, source: str, span) -> Iterator[tuple[int, int, str, str]]:
    if isinstance(node, ast.BinOp) and type(node.op) in SYMBOLS:
        (start, left), (right, end) = span(node.left), span(node.right)
        symbol = SYMBOLS[type(node.op)]
        for slip in _between(source, left, right, symbol, ARITHMETIC[symbol]):
            yield *slip, "operator"
        yield *span(node), source[start:left], "first operand"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SYMBOLS:
        left, right = span(node.left)[1], span(node.comparators[0])[0]
        symbol = SYMBOLS[type(node.ops[0])]
        for other in COMPARISONS[symbol]:
            for slip in _between(source, left, right, symbol, other):
                yield *slip, "comparison"
    elif isinstance(node, ast.BoolOp):
        symbol = SYMBOLS[type(node.op)]
        left, right = span(node.values[0])[1], span(node.values[1])[0]
        for slip in _between(source, left, right, symbol, {"and": "or", "or": "and"}[symbol]):
            if len(node.values) == 2:
                yield *slip, "connective"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        start, end = span(node.operand)
        yield *span(node), source[start:end], "unary"
    elif isinstance(node, ast.Constant):
        yield from _constants(node, span)
    elif isinstance(node, ast.Call):
        yield from _calls(node, source, span)
    elif isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None and not isinstance(bound, ast.Constant | ast.UnaryOp):
                start, end = span(bound)
                yield start, end, f"{source[start:end]} + 1", "slice"
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(
        node.test, ast.Name | ast.Attribute | ast.Call
    ):
        start, end = span(node.test)
        yield start, end, f"(not {source[start:end]})", "condition"
    elif isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield *span(node), "pass", "statement removed"


def _constants(node: ast.Constant, span) -> Iterator[tuple[int, int, str, str]]:
    value = node.value
    if isinstance(value, bool):
        yield *span(node), str(not value), "constant"
    elif isinstance(value, int):
        yield *span(node), str(value + 1), "constant"
        yield *span(node), f"({value - 1})", "constant"
    elif isinstance(value, float):
        yield *span(node), repr(value + 1), "constant"


def _calls(node: ast.Call, source: str, span) -> Iterator[tuple[int, int, str, str]]:
    start, end = span(node.func)
    name = source[start:end].rpartition(".")[2]
    if name in NAMES:
        yield end - len(name), end, NAMES[name], "function"
    plain = [a for a in node.args if not isinstance(a, ast.Starred)]
    if len(plain) == len(node.args) >= 2:
        one, other = plain[-2:]
        (a, b), (c, d) = span(one), span(other)
        yield a, d, source[c:d] + source[b:c] + source[a:b], "arguments swapped"
    if name == "range" and plain:
        a, b = span(plain[-1] if len(plain) < 3 else plain[1])
        yield a, b, f"{source[a:b]} - 1", "range"
    arguments = [*node.args, *(k.value for k in node.keywords)]
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in ON_DEVICES_ONLY or name in ("Option", "Argument", "field", "jit"):
            continue
        before = [x for x in arguments if span(x)[1] < span(keyword)[0]]
        first = max((span(x)[1] for x in before), default=None)
        if first is not None:
            yield first, span(keyword)[1], "", "keyword dropped"


def identity(error: Error, source: str) -> str:
    """A short name that stays when lines move: of the file, what stands around the place, and what replaces it."""
    around = source[max(0, error.start - 60) : error.end + 60]
    text = f"{error.file}|{around}|{source[error.start : error.end]}|{error.new}"
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def sample(count: int, seed: int, wanted: list[str]) -> list[tuple[str, Error]]:
    """Errors of the wanted areas: each area has the same share of `count`, each kind its turn, places at random.

    What an area gets does not depend on which others are wanted.
    """
    drawn = []
    for number, area in enumerate(areas.AREAS):
        share = count * (number + 1) // len(areas.AREAS) - count * number // len(areas.AREAS)
        if area not in wanted:
            continue
        draw = random.Random(f"{seed} {area}")
        kinds: dict[str, list[Error]] = {}
        for name in areas.AREAS[area]:
            path = areas.ROOT / areas.path_of(name)
            if path.is_file():
                for error in errors(areas.path_of(name), path.read_text()):
                    kinds.setdefault(error.kind, []).append(error)
        piles = [kinds[kind] for kind in sorted(kinds)]
        for pile in piles:
            draw.shuffle(pile)
        draw.shuffle(piles)
        taken: list[Error] = []
        while len(taken) < share and any(piles):
            for pile in piles:
                if pile and len(taken) < share:
                    taken.append(pile.pop())
        drawn += [(area, error) for error in taken]
    return drawn
