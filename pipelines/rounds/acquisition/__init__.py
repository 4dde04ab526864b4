"""Registry of acquisition functions: ``round.acquisition`` in ``dsmoe.yaml`` names an entry.

To add one, write a module with an ``AcquisitionFunction`` next to ``entropy.py``, and add an entry here.
"""

from __future__ import annotations

from dsmoe_core.errors import SettingsError
from pipelines.rounds.acquisition.core_set import CORE_SET
from pipelines.rounds.acquisition.entropy import ENTROPY
from pipelines.rounds.acquisition.expected_gain import EXPECTED_GAIN
from pipelines.rounds.acquisition.function import AcquisitionFunction
from pipelines.rounds.acquisition.margin import MARGIN
from pipelines.rounds.acquisition.pal import PAL
from pipelines.rounds.acquisition.ppal import PPAL
from pipelines.rounds.acquisition.typicality import TYPICALITY
from pipelines.rounds.acquisition.uniform import UNIFORM

ACQUISITION_FUNCTIONS: dict[str, AcquisitionFunction] = {
    "entropy": ENTROPY,
    "random": UNIFORM,
    "margin": MARGIN,
    "core-set": CORE_SET,
    "ppal": PPAL,
    "pal": PAL,
    "typicality": TYPICALITY,
    "expected_gain": EXPECTED_GAIN,
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
