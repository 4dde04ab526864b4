"""Digests of code and data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsmoe_core.schema import Vocabulary
from pipelines.benchmarks.comparison.digests import dataset_digest, module_digest, package_digest
from pipelines.benchmarks.comparison.protocol import BenchmarkDataset

MODULE = '''"""Module."""

# a comment
LIMIT = 3
"""The limit."""


class Box:
    """A box."""

    width: float = 1.0
    """In pixels."""

    def area(self, height: float) -> float:
        """The area."""
        return self.width * height  # pixels


async def load(name: str) -> str:
    """Load it."""
    return name + "text"
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment\n", "# another\n\n\n"),
        ("  # pixels", ""),
        ('"""Module."""', '"""Another text.\n\nOf several lines."""'),
        ('"""Module."""\n', ""),
        ('"""The limit."""\n', ""),
        ('    """A box."""\n', ""),
        ('"""In pixels."""', '"""In millimetres."""'),
        ('        """The area."""\n', ""),
        ('"""Load it."""', "'''Load the file.'''"),
        ("self.width * height", "(self.width\n                * height)"),
        ('name + "text"', "name + 'text'"),
    ],
)
def test_comments_docstrings_and_format_do_not_change_the_digest(tmp_path: Path, old: str, new: str) -> None:
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(MODULE)
    after.write_text(MODULE.replace(old, new))
    assert after.read_text() != MODULE
    assert module_digest(after) == module_digest(before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "MAXIMUM = 3"),
        ("width * height", "width + height"),
        ('name + "text"', 'name + "another text"'),
        ("async def", "def"),
        ("height: float)", "height: float = 2)"),
        ("        return self.width * height", "        self.width\n        return self.width * height"),
    ],
)
def test_code_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(MODULE)
    after.write_text(MODULE.replace(old, new))
    assert after.read_text() != MODULE
    assert module_digest(after) != module_digest(before)


def test_package_digest_covers_all_modules(tmp_path: Path) -> None:
    def digest() -> str:
        package_digest.cache_clear()
        return package_digest(tmp_path / "package" / "__init__.py")

    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/a.py", "inner/b.py"):
        (package / name).write_text("x = 1\n")
    digests = [digest()]
    (package / "inner/a.py").write_text("x = 2\n")
    digests.append(digest())
    (package / "inner/c.py").write_text("")
    digests.append(digest())
    (package / "inner/c.py").rename(package / "inner/d.py")
    digests.append(digest())
    assert len(set(digests)) == 4
    (package / "notes.txt").write_text("nothing")
    (package / "inner/a.py").write_text('"""Doc."""\nx = 2  # comment\n')
    assert digest() == digests[-1]


def test_extra_sets_and_their_texts_change_the_dataset_digest(dataset: BenchmarkDataset) -> None:
    extra = replace(dataset, name="more", train=dataset.train[:5])
    reordered = replace(extra, vocabulary=Vocabulary(extra.vocabulary.classes[::-1]))
    datasets = [
        dataset,
        *(replace(dataset, extra_sets=sets) for sets in ((extra,), (reordered,), (extra, extra))),
    ]
    assert len({dataset_digest(one) for one in datasets}) == 4
