"""Registry of detector backends: ``detector.kind`` in ``dsmoe.yaml`` names an entry.

To add a backend, write a module with a class that satisfies ``DetectorBackend``, and add an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsmoe_core.errors import SettingsError
from pipelines.detectors import ds_moe
from pipelines.detectors.backend import DetectorBackend
from pipelines.detectors.stub_detector import StubDetector
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """One kind of detector.

    Attributes:
        make: builds the backend from the settings of a workspace; loads no weights.
        tracked: whether its training curves are stored, see pipelines.detectors.tracking.
    """

    make: Callable[[Workspace, Environment], DetectorBackend]
    tracked: bool = True


DETECTOR_BACKENDS: dict[str, DetectorEntry] = {
    ds_moe.KIND: DetectorEntry(ds_moe.dsmoe_backend),
    "stub": DetectorEntry(lambda _workspace, _environment: StubDetector(), tracked=False),
}


def detector_entry(kind: str) -> DetectorEntry:
    """The entry of a kind of detector.

    Raises:
        SettingsError: there is none of this name.
    """
    if kind not in DETECTOR_BACKENDS:
        raise SettingsError(
            f"detector.kind is {kind!r}; expected one of: {', '.join(DETECTOR_BACKENDS)}",
            "Correct it in dsmoe.yaml.",
        )
    return DETECTOR_BACKENDS[kind]


def detector_backend(workspace: Workspace, environment: Environment) -> DetectorBackend:
    """The detector of a workspace.

    Raises:
        SettingsError: its settings name an unknown kind.
    """
    return detector_entry(workspace.settings.detector.kind).make(workspace, environment)
