"""Benchmark of unattended retrain cycles, with a real Label Studio and the real network.

Parts: rounds of ``dsmoe watch`` with a simulated annotator; a round with planted label errors; a rollback.
The fourth part, candidates that differ by chance, is in ``loop_chance``.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from annotate.studio.api import Api
from annotate.studio.protocol import Connection
from annotate.studio.task_query import OPEN, PREDICTIONS, query_tasks
from dsmoe_core.atomic import atomic_write
from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.data import coco
from dsmoe_core.errors import SettingsError
from pipelines.benchmarks.label_errors import plant_errors
from pipelines.benchmarks.loop_chance import measure_chance
from pipelines.progress import ProgressReporter
from pipelines.rounds.context import LoopContext
from pipelines.rounds.loop import close_round, open_round
from pipelines.rounds.simulated_annotator import load_truth, simulated_annotator
from pipelines.services import factory
from pipelines.settings.detector import DetectorSettings, backbone_of_start, default_encoder
from pipelines.settings.environment import Environment
from pipelines.settings.rounds import RoundSettings
from pipelines.settings.studio import StudioSettings
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.champion import promote_by_hand, rollback_champion
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.journal import RoundRecord
from pipelines.workspace.round_summary import RoundSummary
from pipelines.workspace.workspace import Workspace

Plain = dict[str, Any]
RunWatch = Callable[[Path, int, Path], None]
"""Runs the loop of ``dsmoe watch --simulated`` on a workspace: path, rounds to close, file of the labels."""


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """Sizes of the benchmark.

    Attributes:
        rounds: unattended rounds; the first one has no champion.
        budget: images of a round.
        images_seen: length of each training, in images.
        test_images: of ``val.json``, spread evenly.
        candidates: images of the pool that are ranked in a round.
        wrong: share of the boxes of the bad round that get an error.
        seeds: trainings for the candidates by chance.
        chance_images: test images of each of their comparisons.
        trials: comparisons.
        start: initial weights of the image encoder, which is trained only if they are random.
    """

    rounds: int = 3
    budget: int = 40
    px: int = 192
    images_seen: int = 500
    test_images: int = 120
    candidates: int = 200
    wrong: float = 0.3
    seeds: int = 5
    chance_images: int = 30
    trials: int = 20
    seed: int = 42
    start: Literal["imagenet-lite", "warm", "scratch"] = "warm"

    def settings(self, port: int) -> WorkspaceSettings:
        """The settings of the workspace; those of the promotion gate are the defaults."""
        return WorkspaceSettings(
            title="dsmoe benchmark loop",
            seed=self.seed,
            round=RoundSettings(budget=self.budget, candidates=self.candidates),
            studio=StudioSettings(port=port),
            detector=DetectorSettings(
                model=ModelConfig(image_px=self.px, backbone=backbone_of_start(self.start)),
                training=TrainingConfig(seed=self.seed, encoder=default_encoder(self.start)),
                images_seen=(self.images_seen,),
                start=self.start,
            ),
        )


class LoopBenchmark:
    """Measures the parts; those that are done are kept in the work folder and not repeated.

    Args:
        data: folder with ``images/``, ``train.json`` and ``val.json``.
        work: folder of the workspace and of the parts.
        run_watch: the loop of ``dsmoe watch``.
    """

    def __init__(
        self,
        data: Path,
        work: Path,
        plan: LoopPlan,
        environment: Environment,
        port: int,
        progress: ProgressReporter,
        run_watch: RunWatch,
    ) -> None:
        self._data, self._plan, self._port = data, plan, port
        self._environment, self._progress, self._run_watch = environment, progress, run_watch
        self._path, self._stored = work / "workspace", work / "parts.json"
        self._truth = data / "train.json"

    def measure(self, save: Callable[[Plain], None]) -> Plain:
        """Measure the parts that are missing, and return all.

        Args:
            save: called with the parts that are done after each of them.

        Raises:
            SettingsError: the work folder is of a benchmark with another plan.
            StudioError: Label Studio fails.
        """
        done = self._read()
        measures: dict[str, Callable[[Plain], Plain]] = {
            "unattended": lambda _: self._unattended(),
            "bad_round": lambda _: self._bad_round(),
            "rollback": lambda parts: self._rollback(parts["bad_round"]["model"]),
            "chance": lambda parts: self._chance(parts["unattended"]["rounds"][-1]["dataset_version"]),
        }
        try:
            for name, measure in measures.items():
                if name in done:
                    continue
                started = time.monotonic()
                self._progress.line(f"part {name}")
                part = measure(done)
                done[name] = part | {"seconds": round(time.monotonic() - started)}
                atomic_write(self._stored, json.dumps(done, indent=1))
                save(done)
        finally:
            self._stop_label_studio()
        return done

    def _read(self) -> Plain:
        """The parts that are done; the workspace is created at the first call."""
        plan = {"data": self._data.resolve().name, **asdict(self._plan)}
        if self._stored.exists():
            done: Plain = json.loads(self._stored.read_text(encoding="utf-8"))
            if done["plan"] != plan:
                raise SettingsError(
                    f"{self._stored} is of a benchmark with other options: {done['plan']}",
                    "Give the same options, or another --work.",
                )
            return done
        if not (self._path / "dsmoe.yaml").exists():
            self._make_workspace()
        return {"plan": plan}

    def _make_workspace(self) -> None:
        train, test = (coco.read(self._data / name) for name in ("train.json", "val.json"))
        step = max(1, len(test.images) // self._plan.test_images)
        test = replace(test, images=test.images[::step][: self._plan.test_images])
        source = Source(
            self._data / "images",
            test=test,
            classes=list(train.classes),
            pool={entry.name for entry in train.images},
        )
        make_workspace(self._path, source, self._plan.settings(self._port), progress=self._progress.advance)[
            0
        ].close()

    @contextmanager
    def _context(self) -> Iterator[tuple[LoopContext, Connection]]:
        """The workspace with its Label Studio."""
        progress = self._progress
        with Workspace.open(self._path) as workspace:
            context, connection = factory.loop_context(
                workspace, self._environment, progress, progress.status, self._port
            )
            assert connection is not None  # noqa: S101  # the settings select Label Studio
            yield context, connection

    def _stop_label_studio(self) -> None:
        with Workspace.open(self._path) as workspace:
            server = factory.labelling_server(workspace, self._environment, self._port)
            if server is not None:
                server.stop()

    def _unattended(self) -> Plain:
        """Rounds of the loop of ``dsmoe watch --simulated``, until so many are closed."""
        with Workspace.open(self._path) as workspace:
            closed = sum(row.state == "closed" for row in workspace.journal.rounds())
        if closed < self._plan.rounds:
            self._run_watch(self._path, self._plan.rounds - closed, self._truth)
        with Workspace.open(self._path) as workspace:
            rows = zip(workspace.journal.rounds(), workspace.rounds(), strict=True)
            return {
                "pool": len(workspace.images("pool")),
                "test_images": len(workspace.images("test")),
                "rounds": [_row(workspace, *row) for row in rows],
            }

    def _bad_round(self) -> Plain:
        """A round whose annotator makes errors: boxes shifted, of another class, and dropped."""
        number = self._plan.rounds
        with self._context() as (context, _):
            workspace = context.workspace
            rows = workspace.journal.rounds()
            if len(rows) == number or rows[number].state in ("opening", "open"):
                open_round(context)
            keys = [task.key for task in workspace.journal.tasks(number)]
            truth = load_truth(self._truth, workspace)
            labelled, classes = [truth[key] for key in keys], workspace.class_book().vocabulary().names
            planted = plant_errors(labelled, classes, seed=self._plan.seed, share=self._plan.wrong / 3)
            if workspace.journal.rounds()[number].state != "closed":
                if workspace.rounds()[number].state == "open":
                    wrong = {item.image.key: item for item in planted.labelled}
                    simulated_annotator(truth | wrong)(context, workspace.rounds()[number])
                close_round(context)
            boxes = sum(len(item.annotations) for item in labelled)
            row = _row(workspace, workspace.journal.rounds()[number], workspace.rounds()[number])
            champion = workspace.champion()
        return {
            **row,
            "planted": planted.counts,
            "true_boxes": boxes,
            "wrong_share": round(sum(planted.counts.values()) / boxes, 4),
            "champion_after": champion,
            "champion_stays": champion == row["champion"],
        }

    def _rollback(self, bad: str) -> Plain:
        """The bad candidate is promoted by hand, a round is opened with it, and it is rolled back."""
        with self._context() as (context, connection):
            workspace, api = context.workspace, Api(connection)
            earlier = next(c.model for c in reversed(workspace.registry.history()) if c.model != bad)
            if workspace.champion() != bad:
                promote_by_hand(workspace, bad, "to measure a rollback")
            open_round(context)
            before = _shown(api, context.project())
            rollback_champion(workspace, "to measure a rollback")
            open_round(context)
            after = _shown(api, context.project())
            versions = {model: workspace.prediction_version(model) for model in (bad, earlier)}
            blind = sum(task.version is None for task in workspace.journal.tasks(self._plan.rounds + 1))
        return {
            "bad": versions[bad],
            "earlier": versions[earlier],
            "before": before,
            "after": after,
            "blind": blind,
            "restored": set(after["newest"]) - {"none"} == {versions[earlier]} == {after["project"]},
        }

    def _chance(self, dataset: str) -> Plain:
        plan = self._plan
        with Workspace.open(self._path) as workspace:
            return measure_chance(
                workspace,
                self._environment,
                self._stored.parent / "chance",
                dataset,
                seeds=range(plan.seed + 1, plan.seed + 1 + plan.seeds),
                images=plan.chance_images,
                trials=plan.trials,
                progress=self._progress,
            )


def _shown(api: Api, project: int) -> Plain:
    """Versions of the newest pre-annotations of the open tasks, and the one that the label stream shows."""
    newest: Counter[str] = Counter()
    for task in query_tasks(api, project, PREDICTIONS, OPEN):
        predictions = task.get("predictions") or []
        latest = max(predictions, key=lambda p: int(p["id"]), default=None)
        newest[str(latest["model_version"]) if latest else "none"] += 1
    with api.client("read the model version") as sdk:
        version = sdk.projects.get(project).model_version
    return {"newest": dict(newest), "project": version}


def _row(workspace: Workspace, record: RoundRecord, summary: RoundSummary) -> Plain:
    """A closed round: labels, metrics of candidate and champion, decision, duration."""
    result: Mapping[str, Any] = record.result or {}
    card = workspace.registry.card(str(result["model"]))
    metrics = (workspace.journal.finished(record.round, "evaluate") or {})["metrics"]
    champion = metrics.get(card.parent) or {}
    end = record.closed_at or record.opened_at
    return {
        "round": record.round,
        "images": summary.images,
        "boxes": summary.boxes,
        "new_boxes": summary.new_boxes,
        "dataset_version": summary.dataset_version,
        "model": card.id,
        "champion": card.parent,
        "candidate_map50": round(metrics[card.id]["map50"], 4),
        "candidate_map": round(metrics[card.id]["map"], 4),
        "champion_map50": round(champion["map50"], 4) if champion else None,
        "champion_map": round(champion["map"], 4) if champion else None,
        "verdict": result["verdict"],
        "reason": result["reason"],
        "round_seconds": round((end - record.opened_at).total_seconds()),
        "training_seconds": round(float(card.training.get("seconds", 0.0))),
    }
