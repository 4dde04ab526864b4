"""How the tests are distributed to several processes."""

from __future__ import annotations

import pytest

from tests.conftest import uses_exports


def test_files_whose_tests_use_the_exports_are_recognised(request: pytest.FixtureRequest) -> None:
    """Of the collected tests; so this says most in a run of all tests."""
    items = request.session.items
    with_exports = (item for item in items if "exports" in getattr(item, "fixturenames", ()))
    using = {item.nodeid.partition("::")[0] for item in with_exports}
    assert [file for file in sorted(using) if not uses_exports(file)] == []
