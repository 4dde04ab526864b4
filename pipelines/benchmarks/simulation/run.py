"""Runs a simulation: seed by seed, in one process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from queue import Empty
from typing import Any

from dsmoe_core.text_encoders.protocol import TextEncoder
from pipelines.benchmarks.comparison.dataset import load_dataset
from pipelines.benchmarks.simulation.plan import Plan
from pipelines.benchmarks.simulation.trajectory import CycleCallback
from pipelines.progress import ProgressReporter, SilentProgress

Results = dict[int, dict[str, list[dict[str, Any]]]]
"""The cycles by seed and cell."""


def run_simulation(plan: Plan, seeds: Sequence[int], jobs: int, progress: ProgressReporter) -> Results:
    """Run all seeds; cycles that are finished already are read.

    Args:
        jobs: processes that run seeds at the same time.

    Raises:
        DataError, FormatError: the data cannot be read.
        ModelError: a training diverged.
    """
    total = len(seeds) * (2 + len(plan.strategies) * plan.rounds)
    done = 0

    def on_cycle(seed: int, cell: str, number: int) -> None:
        nonlocal done
        done += 1
        progress.advance(done, total, f"seed {seed}: {cell}, cycle {number}")

    progress.status(f"simulating {plan.data.resolve().name}")
    if jobs == 1:
        return {seed: run_seed(plan, seed, partial(on_cycle, seed), progress=progress) for seed in seeds}
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(jobs, mp_context=context) as pool:
        reports = manager.Queue()
        futures = {pool.submit(_seed_in_process, plan, seed, reports): seed for seed in seeds}
        results: Results = {}
        while len(results) < len(seeds):
            running = [future for future, seed in futures.items() if seed not in results]
            finished = wait(running, 1, FIRST_COMPLETED)
            try:
                while True:
                    on_cycle(*reports.get_nowait())
            except Empty:
                pass
            results |= {futures[future]: future.result() for future in finished.done}
        return {seed: results[seed] for seed in seeds}


def run_seed(
    plan: Plan,
    seed: int,
    on_cycle: CycleCallback,
    *,
    text_encoder: TextEncoder | None = None,
    progress: ProgressReporter | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """The cycles of one seed by cell.

    Args:
        text_encoder: default: the packaged one.
    """
    from pipelines.benchmarks.simulation.learner import Learner
    from pipelines.benchmarks.simulation.trajectory import SeedRun
    from pipelines.detectors.ds_moe import dsmoe_backend
    from pipelines.settings.environment import Environment

    encoder = text_encoder or dsmoe_backend(None, Environment.read()).text_encoder
    with load_dataset(plan.data, progress or SilentProgress()) as dataset:
        return SeedRun(plan, dataset, Learner(plan, encoder), seed, on_cycle).run()


def _seed_in_process(plan: Plan, seed: int, reports: Any) -> dict[str, list[dict[str, Any]]]:
    """One seed in a process of its own, with one thread, as the processes share the cores."""
    import torch

    torch.set_num_threads(1)
    return run_seed(plan, seed, lambda cell, number: reports.put((seed, cell, number)))
