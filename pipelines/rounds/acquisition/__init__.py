"""Registry of acquisition functions: ``round.acquisition`` in ``dsmoe.yaml`` names an entry.

To add one, write a module with an ``AcquisitionFunction`` next to ``entropy.py``, and add an entry here.
"""

from __future__ import annotations

from dsmoe_core.errors import SettingsError
from pipelines.rounds.acquisition.entropy import ENTROPY
from pipelines.rounds.acquisition.function import AcquisitionFunction
from pipelines.rounds.acquisition.uniform import UNIFORM

ACQUISITION_FUNCTIONS: dict[str, AcquisitionFunction] = {
    "entropy": ENTROPY,
    "random": UNIFORM,
}


def acquisition_function(name: str) -> AcquisitionFunction:
    """The acquisition function of this name.

    Raises:
        SettingsError: there is none.
    """
    if name not in ACQUISITION_FUNCTIONS:
        raise SettingsError(
            f"round.acquisition is {name!r}; expected one of: {', '.join(ACQUISITION_FUNCTIONS)}",
            "Correct it in dsmoe.yaml.",
        )
    return ACQUISITION_FUNCTIONS[name]
