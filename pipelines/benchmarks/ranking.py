"""Time and memory of ranking a large pool, from synthetic stored predictions and embeddings.

Each pool size has a process of its own, so that the peak of the resident memory is that of its ranking.
Everything is read from the stores as in a round: predictions one by one, embeddings from the mapped file.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dsmoe_core.errors import PrerequisiteError
from dsmoe_core.schema import Box, Detection, Prediction, Routing
from dsmoe_core.uncertainty import binary_entropy, image_uncertainty
from pipelines.benchmarks.peak_memory import peak_memory_mb
from pipelines.progress import ProgressReporter
from pipelines.rounds.acquisition import acquisition_function
from pipelines.rounds.acquisition.function import Candidates
from pipelines.rounds.acquisition.limits import DuplicateFilter, Limits
from pipelines.rounds.acquisition.selection import ranked_round
from pipelines.workspace.embedding_store import EmbeddingStore
from pipelines.workspace.prediction_store import PredictionStore

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pinhole")
WIDTH = 64
"""Values of an embedding, as of the smaller network."""
GROUPS = 50
"""Groups of similar images."""
VERSION = "synthetic+book"
LABELLED_SHARE, MAX_TEST = 0.1, 2000
"""Labelled images as a share of the pool; at most this many test images."""
MEAN_DETECTIONS = 4
BUDGET = 40
DUPLICATE_SIMILARITY = 0.998
_Result = TypeVar("_Result")


def measure_ranking(
    sizes: Sequence[int], functions: Sequence[str], seed: int, progress: ProgressReporter
) -> dict[str, Any]:
    """Rank pools of these sizes with each acquisition function.

    Returns:
        ``rows``: a row per size and step, with ``seconds``, ``cpu_s`` (processor time), and ``peak_mb``, the
        peak of the resident memory of the process until the end of the step. The steps are ``import``,
        ``write`` (makes the synthetic stores, no part of a round), ``lookup``, ``map embeddings``, each
        function, and its selection.

    Raises:
        SettingsError: an acquisition function is unknown.
        PrerequisiteError: usearch is needed and not installed, or the process of a size was killed.
    """
    for name in functions:
        acquisition_function(name)
    rows: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    for done, size in enumerate(sizes):
        progress.status(f"ranking {size:,} images")
        progress.advance(done, len(sizes))
        try:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                rows += pool.submit(measure_size, size, tuple(functions), seed).result()
        except BrokenProcessPool as error:
            raise PrerequisiteError(
                f"the process that ranked {size:,} images was killed, as when the memory is full",
                "Free some memory, or give fewer --images.",
            ) from error
    return {
        "classes": len(CLASSES),
        "width": WIDTH,
        "budget": BUDGET,
        "labelled_share": LABELLED_SHARE,
        "mean_detections": MEAN_DETECTIONS,
        "rows": rows,
    }


def measure_size(size: int, functions: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """The rows of one pool size, measured in this process."""
    rows: list[dict[str, Any]] = [{"images": size, "step": "import", "peak_mb": peak_memory_mb()}]

    def timed(step: str, work: Callable[[], _Result]) -> _Result:
        start, processor = time.monotonic(), time.process_time()
        result = work()
        times = {"seconds": time.monotonic() - start, "cpu_s": time.process_time() - processor}
        rounded = {name: round(value, 2) for name, value in times.items()}
        rows.append({"images": size, "step": step, **rounded, "peak_mb": peak_memory_mb()})
        return result

    keys = [f"{i:064x}" for i in range(size)]
    labelled = [f"{i:064x}" for i in range(size, size + round(LABELLED_SHARE * size))]
    test = [f"{i:064x}" for i in range(2 * size, 2 * size + min(MAX_TEST, size))]
    with tempfile.TemporaryDirectory(prefix="dsmoe-") as folder:
        predictions, embeddings = PredictionStore(Path(folder)), EmbeddingStore(Path(folder))
        timed("write", partial(_write, predictions, embeddings, keys, [*labelled, *test], seed))
        stored = timed("lookup", lambda: predictions.lookup(VERSION))
        vectors = timed("map embeddings", lambda: _mapped(embeddings, keys))
        candidates = Candidates(
            keys,
            lambda: (stored[key] for key in keys),
            seed,
            budget=BUDGET,
            embeddings=lambda: vectors.vectors(keys),
            labelled_embeddings=lambda: vectors.vectors(labelled),
            class_counts=lambda: dict.fromkeys(CLASSES, len(labelled)),
        )
        for name in functions:
            scores = timed(name, partial(acquisition_function(name).score, candidates))
            limits = Limits(
                duplicates=DuplicateFilter(DUPLICATE_SIMILARITY, vectors.vectors, test, lambda *_: False)
            )
            select = partial(ranked_round, scores, budget=BUDGET, random_share=0.1, seed=seed, limits=limits)
            timed(f"{name}: select", select)
    return rows


def _mapped(store: EmbeddingStore, keys: Sequence[str]) -> Any:
    """The embeddings, after the keys were put in order."""
    found = store.read(VERSION)
    found.missing(keys[:1])
    return found


def _write(
    predictions: PredictionStore,
    embeddings: EmbeddingStore,
    keys: Sequence[str],
    others: Sequence[str],
    seed: int,
) -> None:
    """Store predictions of the pool, and embeddings of all images."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(GROUPS, WIDTH))
    with embeddings.writer(VERSION) as writer:
        for key in (*keys, *others):
            writer.add(key, centres[rng.integers(GROUPS)] + 0.5 * rng.normal(size=WIDTH))
    predictions.append(VERSION, synthetic_predictions(keys, seed))


def synthetic_predictions(keys: Sequence[str], seed: int) -> Iterator[Prediction]:
    """A prediction per key, with a Poisson number of detections of uniform scores."""
    rng = np.random.default_rng(seed)
    for key in keys:
        count = int(rng.poisson(MEAN_DETECTIONS))
        probabilities = rng.uniform(0.01, 0.95, (count, len(CLASSES))) ** 3
        corners = rng.uniform(0, 500, (count, 2))
        entropies = binary_entropy(probabilities)
        detections = sorted(
            (
                _detection(corner, row, float(entropy))
                for corner, row, entropy in zip(corners, probabilities, entropies, strict=True)
            ),
            key=lambda d: -d.score,
        )
        yield Prediction(
            key, tuple(detections), Routing((0, 1), (0.6, 0.4), 1.0), image_uncertainty(detections), VERSION
        )


def _detection(corner: NDArray[np.float64], row: NDArray[np.float64], entropy: float) -> Detection:
    x, y = map(float, corner)
    label = int(row.argmax())
    probabilities = dict(zip(CLASSES, map(float, row), strict=True))
    return Detection(Box(x, y, x + 20, y + 20), CLASSES[label], float(row[label]), probabilities, entropy, 0)
