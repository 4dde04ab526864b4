"""The contract of every acquisition function, and their registry."""

from __future__ import annotations

from math import isfinite

import pytest

from dsmoe_core.errors import SettingsError
from pipelines.rounds.acquisition import ACQUISITION_FUNCTIONS, acquisition_function
from pipelines.settings.rounds import RoundSettings
from tests.pipelines.rounds.acquisition.candidates import candidates

ENTROPIES = {f"p{i}": tuple(0.1 * j for j in range(i)) for i in range(6)}


@pytest.mark.parametrize("name", ACQUISITION_FUNCTIONS)
def test_every_candidate_gets_a_finite_reproducible_score(name: str) -> None:
    function = acquisition_function(name)
    assert function.description
    scores = function.score(candidates(ENTROPIES, seed=3))
    assert scores.keys() == ENTROPIES.keys()
    assert all(map(isfinite, scores.values()))
    backwards = dict(reversed(list(ENTROPIES.items())))
    assert function.score(candidates(backwards, seed=3)) == scores


@pytest.mark.parametrize("name", ACQUISITION_FUNCTIONS)
def test_no_candidates_have_no_scores(name: str) -> None:
    assert acquisition_function(name).score(candidates({})) == {}


def test_default_setting_is_registered() -> None:
    assert RoundSettings().acquisition in ACQUISITION_FUNCTIONS


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'guess'.* entropy, random"):
        acquisition_function("guess")
