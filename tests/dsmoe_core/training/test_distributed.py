"""Tests of training in several processes: the results equal those of one process with the whole batch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from references import close
from tiny import QUICK, train
from torch import nn

from dsmoe_core.checkpoint import WEIGHTS, read_tensors
from dsmoe_core.config import LossWeights, TrainingConfig
from dsmoe_core.data.batches import Batch
from dsmoe_core.errors import SettingsError
from dsmoe_core.running_mean import RunningMean
from dsmoe_core.schema import LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.training.distributed import ProcessGroup, process_group
from dsmoe_core.training.synchronised import SynchronisedBatchNorm, SynchronisedRunningMean, synchronise

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Initialise a process group with this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_batch_norm_equals_batch_norm(momentum: float | None) -> None:
    """Compares outputs, gradients, statistics and names in one process."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum))
    nn.init.normal_(plain[1].weight)
    synced = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum))
    synced.load_state_dict(plain.state_dict())
    synchronise(synced)
    assert isinstance(synced[1], SynchronisedBatchNorm)
    for _ in range(3):
        x = torch.randn(5, 3, 6, 7) * 3 + 10
        weight = torch.randn(5, 4, 6, 7)
        for network in (plain, synced):
            network.zero_grad()
            (network(x) * weight).sum().backward()
        close(synced(x).double(), plain(x).double(), 1e-5)
        for weight_synced, weight_plain in zip(synced.parameters(), plain.parameters(), strict=True):
            assert weight_synced.grad is not None
            assert weight_plain.grad is not None
            close(weight_synced.grad.double(), weight_plain.grad.double(), 1e-3)
    for name, tensor in plain.state_dict().items():
        close(synced.state_dict()[name].double(), tensor.double(), 1e-5)
    synced.eval()
    plain.eval()
    close(synced(x).double(), plain(x).double(), 1e-4)


@pytest.mark.usefixtures("group")
def test_synchronised_running_mean_equals_running_mean() -> None:
    plain, synced = (nn.Sequential(RunningMean(3, momentum=0.3)) for _ in range(2))
    synchronise(synced)
    assert isinstance(synced[0], SynchronisedRunningMean)
    for _ in range(4):
        rows = torch.randn(5, 3)
        for network in (plain, synced):
            network[0].update(rows)
    assert torch.equal(synced(rows), plain(rows))


def test_a_batch_is_divided_evenly_or_refused() -> None:
    pixels = np.arange(6 * 3, dtype=np.uint8).reshape(6, 1, 1, 3)
    boxes, labels = (
        [np.zeros((i, 4), np.float32) for i in range(6)],
        [np.zeros(i, np.int64) for i in range(6)],
    )
    batch = Batch(pixels, boxes, labels)
    shards = [ProcessGroup(rank, 3).shard(batch) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate([s.pixels for s in shards]), pixels)
    assert [len(b) for s in shards for b in s.boxes] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(SettingsError, match=r"is 6\b.*\b4 processes"):
        ProcessGroup(0, 4).shard(batch)


def test_without_torchrun_the_group_has_one_process() -> None:
    with process_group() as processes:
        assert processes == ProcessGroup() == ProcessGroup.current()
        assert processes.is_main


PROGRAM = """
import json, pickle, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from tiny import train
from dsmoe_core.config import TrainingConfig
from dsmoe_core.training.distributed import process_group
out, data, training = Path(sys.argv[1]), Path(sys.argv[2]), TrainingConfig.model_validate_json(sys.argv[3])
reported = []
with process_group() as processes:
    assert processes.count == 2
    progress = lambda step, steps, metrics: reported.append(dict(metrics))
    images, vocabulary, extra_sets = pickle.loads(data.read_bytes())
    summary = train(out, images, vocabulary, training=training, extra_sets=extra_sets, progress=progress)
    (out / f"rank-{{processes.rank}}.json").write_text(json.dumps([reported, summary.losses]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("multiple_sets", "losses"),
    [(False, {}), (True, {}), (False, {"text_balance": 0.5, "gradient_conflict": 0.5})],
    ids=["one set", "two sets, class subsets", "one set, options of the router"],
)
def test_two_processes_have_the_losses_of_one_process_with_the_same_batch(
    multiple_sets: bool,
    losses: dict[str, float],
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    bars: LabelledSet,
) -> None:
    """Includes batch normalisation in training mode; only the order of additions differs."""
    extra_sets = [bars] if multiple_sets else []
    training: TrainingConfig = QUICK.model_copy(
        update={"batch": 4, "class_subsets": 0.5 * multiple_sets, "losses": LossWeights(**losses)}
    )
    alone: list[dict[str, float]] = []
    train(
        tmp_path / "one",
        images,
        vocabulary,
        training=training,
        extra_sets=extra_sets,
        progress=lambda step, steps, metrics: alone.append(dict(metrics)),
    )
    program, data = tmp_path / "program.py", tmp_path / "data"
    program.write_text(PROGRAM.format(root=str(ROOT)))
    data.write_bytes(pickle.dumps((images, vocabulary, extra_sets)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    completed = subprocess.run(
        [*launch, str(program), str(tmp_path / "two"), str(data), training.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    reported, losses = json.loads((tmp_path / "two" / "rank-0.json").read_text())
    reported_by_second, losses_of_second = json.loads((tmp_path / "two" / "rank-1.json").read_text())
    assert reported_by_second == []
    assert losses_of_second == losses
    assert len(reported) == len(alone) == 3
    for tolerance, expected, metrics in zip((1e-4, 1e-2, 5e-2), alone, reported, strict=True):
        assert set(metrics) == set(expected)
        for name in expected.keys() - {"seconds_left"}:
            assert metrics[name] == pytest.approx(expected[name], rel=tolerance, abs=1e-6), name
    first, second = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("one", "two"))
    for name, tensor in first.items():
        if name.endswith(("running_mean", "running_var")):
            close(second[name].double(), tensor.double(), 0.05)
