"""Hashes of the code and the data that determine the result of a training."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

from pipelines.benchmarks.comparison.protocol import BenchmarkDataset


@cache
def package_digest(package: Path) -> str:
    """SHA-256 of the code of all modules of a package.

    Comments, docstrings and formatting are left out: a training stays valid when only they change. The syntax
    tree depends on the Python version, so another version gives another digest.

    Args:
        package: the ``__init__.py`` of the package.
    """
    root, digest = package.parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + _code(path).encode() + b"\0")
    return digest.hexdigest()


def module_digest(path: Path) -> str:
    """SHA-256 of the code of one module, without comments, docstrings and formatting."""
    return hashlib.sha256(_code(path).encode()).hexdigest()


def _code(path: Path) -> str:
    """The syntax tree of a module without docstrings."""
    return ast.dump(_WithoutDocstrings().visit(ast.parse(path.read_bytes(), filename=str(path))))


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes string statements: docstrings, and the strings that document a constant or an attribute."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node


def dataset_digest(dataset: BenchmarkDataset) -> str:
    """SHA-256 of the labels and the image files of a data set and of its extra sets."""
    digest = hashlib.sha256(json.dumps(dataset.vocabulary.names).encode())
    for part in (dataset.train, dataset.val):
        for labelled in part:
            boxes = [(*a.box.corners, a.label) for a in labelled.annotations]
            digest.update(json.dumps([labelled.image.name, boxes]).encode())
            digest.update(hashlib.sha256(labelled.image.path.read_bytes()).digest())
        digest.update(b"|")
    for extra in dataset.extra_sets:
        digest.update(json.dumps([extra.vocabulary.to_dict(), dataset_digest(extra)]).encode())
    return digest.hexdigest()
