"""Several processes that torchrun starts learn what one learns from the whole batch."""

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
from dsmoe_core.config import TrainingConfig
from dsmoe_core.data.batches import Batch
from dsmoe_core.errors import SettingsError
from dsmoe_core.running_mean import RunningMean
from dsmoe_core.schema import LabelledImage, LabelledSet, Vocabulary
from dsmoe_core.training.distributed import ProcessGroup, process_group
from dsmoe_core.training.synchronised import SynchronisedMean, SynchronisedNorm, synchronise

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone, through which everything goes as through many."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_norm_is_batch_normalisation(momentum: float | None) -> None:
    """Outputs, gradients, statistics and names; the processes' sums are test_two_processes' matter."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum))
    nn.init.normal_(plain[1].weight)
    ours = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=momentum))
    ours.load_state_dict(plain.state_dict())
    synchronise(ours)
    assert isinstance(ours[1], SynchronisedNorm)
    for _ in range(3):
        x = torch.randn(5, 3, 6, 7) * 3 + 10
        weight = torch.randn(5, 4, 6, 7)
        for network in (plain, ours):
            network.zero_grad()
            (network(x) * weight).sum().backward()
        close(ours(x).double(), plain(x).double(), 1e-5)
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            assert mine.grad is not None
            assert theirs.grad is not None
            close(mine.grad.double(), theirs.grad.double(), 1e-3)
    for name, tensor in plain.state_dict().items():
        close(ours.state_dict()[name].double(), tensor.double(), 1e-5)
    ours.eval()
    plain.eval()
    close(ours(x).double(), plain(x).double(), 1e-4)


@pytest.mark.usefixtures("group")
def test_a_synchronised_mean_is_a_running_mean() -> None:
    plain, ours = (nn.Sequential(RunningMean(3, momentum=0.3)) for _ in range(2))
    synchronise(ours)
    assert isinstance(ours[0], SynchronisedMean)
    for _ in range(4):
        rows = torch.randn(5, 3)
        for network in (plain, ours):
            network[0].follow(rows)
    assert torch.equal(ours(rows), plain(rows))


def test_a_batch_is_dealt_out_evenly_or_not_at_all() -> None:
    pixels = np.arange(6 * 3, dtype=np.uint8).reshape(6, 1, 1, 3)
    boxes, labels = (
        [np.zeros((i, 4), np.float32) for i in range(6)],
        [np.zeros(i, np.int64) for i in range(6)],
    )
    batch = Batch(pixels, boxes, labels)
    shares = [ProcessGroup(rank, 3).share(batch) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate([s.pixels for s in shares]), pixels)
    assert [len(b) for s in shares for b in s.boxes] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(SettingsError, match="the batch is 6; expected a multiple of the 4 processes"):
        ProcessGroup(0, 4).share(batch)


def test_without_torchrun_there_is_one() -> None:
    with process_group() as processes:
        assert processes == ProcessGroup() == ProcessGroup.present()
        assert processes.first


PROGRAM = """
import json, pickle, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from tiny import train
from dsmoe_core.config import TrainingConfig
from dsmoe_core.training.distributed import joined
out, data, training = Path(sys.argv[1]), Path(sys.argv[2]), TrainingConfig.model_validate_json(sys.argv[3])
told = []
with joined() as processes:
    assert processes.count == 2
    tell = lambda step, steps, figures: told.append(dict(figures))
    images, vocabulary, also = pickle.loads(data.read_bytes())
    summary = train(out, images, vocabulary, training=training, also=also, progress=tell)
    (out / f"rank-{{processes.rank}}.json").write_text(json.dumps([told, summary.losses]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("multiple_sets", [False, True], ids=["one set", "two sets, class subsets"])
def test_two_processes_have_the_losses_of_one_with_the_double_batch(
    multiple_sets: bool,
    tmp_path: Path,
    images: list[LabelledImage],
    vocabulary: Vocabulary,
    bars: LabelledSet,
) -> None:
    """In training, batch normalisation and all; what differs is the order of additions."""
    extra_sets = [bars] if multiple_sets else []
    training: TrainingConfig = QUICK.model_copy(update={"batch": 4, "class_subsets": 0.5 * multiple_sets})
    alone: list[dict[str, float]] = []
    train(
        tmp_path / "one",
        images,
        vocabulary,
        training=training,
        extra_sets=extra_sets,
        progress=lambda step, steps, figures: alone.append(dict(figures)),
    )
    program, data = tmp_path / "program.py", tmp_path / "data"
    program.write_text(PROGRAM.format(root=str(ROOT)))
    data.write_bytes(pickle.dumps((images, vocabulary, extra_sets)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(program), str(tmp_path / "two"), str(data), training.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    together, losses = json.loads((tmp_path / "two" / "rank-0.json").read_text())
    silent, same_losses = json.loads((tmp_path / "two" / "rank-1.json").read_text())
    assert silent == []
    assert same_losses == losses, "both know how it went"
    assert len(together) == len(alone) == 3
    for tolerance, one, two in zip((1e-4, 1e-2, 5e-2), alone, together, strict=True):
        assert set(two) == set(one)
        for name, value in one.items():
            assert two[name] == pytest.approx(value, rel=tolerance, abs=1e-6), name
    ends = [read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("one", "two")]
    for name, tensor in ends[0].items():
        if name.endswith(("running_mean", "running_var")):
            close(ends[1][name].double(), tensor.double(), 0.05)
