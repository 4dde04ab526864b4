"""The pages as Streamlit draws them, on real workspaces that the loop made with its stubs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.ui.workspaces import make
from ui.app import workspace_path
from ui.gallery import select
from ui.state import current, read, stamp
from ui.views import experts, images, rounds

APP = Path(__file__).parents[2] / "ui" / "app.py"


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace without a round."""
    return make(tmp_path_factory.mktemp("new"), rounds=0)


@pytest.fixture(scope="module")
def seeding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose first images are with the annotators; there is no model yet."""
    return make(tmp_path_factory.mktemp("seeding"), rounds=0, then_open=True)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three closed rounds and an open one."""
    return make(tmp_path_factory.mktemp("grown"), rounds=3, then_open=True)


def page(name: str, workspace: Path) -> AppTest:
    """One page, drawn once."""

    def script(name: str, workspace: str) -> None:
        import importlib
        from pathlib import Path

        from ui.state import read

        importlib.import_module(f"ui.views.{name}").show(read(Path(workspace)))

    given = {"name": name, "workspace": str(workspace)}
    drawn = AppTest.from_function(script, kwargs=given, default_timeout=60).run()
    assert not drawn.exception
    return drawn


def said(drawn: AppTest) -> str:
    """All words outside of tables and charts."""
    parts = (*drawn.markdown, *drawn.caption, *drawn.info, *drawn.warning, *drawn.error)
    return "\n".join(str(part.value) for part in parts)


def test_rounds_of_a_new_workspace(new: Path) -> None:
    drawn = page("rounds", new)
    assert [i.value for i in drawn.info] == [rounds.NO_ROUND]
    values = {m.label: m.value for m in drawn.metric}
    assert (values["mAP@.5 of the model"], values["Images labelled"]) == ("none yet", "0")
    assert not drawn.dataframe


def test_rounds_before_the_first_model(seeding: Path) -> None:
    drawn = page("rounds", seeding)
    assert [i.value for i in drawn.info] == [rounds.NO_MODEL, rounds.NO_PRE_ANNOTATIONS]
    assert drawn.dataframe[0].value["Decision"].tolist() == ["with the annotators: 0 of 6 back"]


def test_rounds_of_a_grown_workspace(grown: Path) -> None:
    drawn = page("rounds", grown)
    assert not drawn.info
    table = drawn.dataframe[0].value
    assert table["Round"].tolist() == [0, 1, 2, 3]
    assert table["Images"].tolist() == [6, 12, 18, 18]
    assert table["Decision"].tolist()[0].startswith("promoted: first model")
    assert len(drawn.get("vega_lite_chart")) == 2
    snapshot = read(grown)
    judged = [r for r in snapshot.rounds if r.model == snapshot.champion]
    values = {m.label: m.value for m in drawn.metric}
    assert values["mAP@.5 of the model"] == f"{judged[0].map50:.2f}"
    assert values["Images labelled"] == "18"


def test_experts_without_a_model(new: Path) -> None:
    assert [i.value for i in page("experts", new).info] == [experts.NO_MODEL]


def test_experts_without_detections(grown: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(grown, tmp_path / "copy")
    shutil.rmtree(copy / "predictions")
    assert [i.value for i in page("experts", copy).info] == [experts.NO_DETECTIONS]


def test_experts_of_a_grown_workspace(grown: Path) -> None:
    drawn = page("experts", grown)
    assert len(drawn.get("vega_lite_chart")) == 1
    assert drawn.dataframe[0].value["Looks at"].tolist() == [100.0]  # the stub has one expert
    drawn.segmented_control(key="source").set_value("people labelled").run()
    assert not drawn.exception
    assert len(drawn.get("vega_lite_chart")) == 1


def test_images_before_the_detector_looked_stand_by_name(seeding: Path) -> None:
    drawn = page("images", seeding)
    assert [i.value for i in drawn.info] == [images.NO_DETECTIONS]
    assert len(drawn.image) == images.PAGE
    assert "train\\-000.png" in said(drawn)
    assert "with the annotators" in said(drawn)
    assert "The detector has not looked at it yet." in said(drawn)


def test_images_can_be_filtered_and_turned(grown: Path) -> None:
    drawn = page("images", grown)
    assert "12 images, the most uncertain first" in said(drawn)
    drawn.segmented_control(key="wanted").set_value("all").run()
    assert "36 images" in said(drawn)
    first = said(drawn)
    drawn.get("pagination")[0].set_value(2).run()
    assert not drawn.exception
    assert said(drawn) != first
    drawn.multiselect(key="classes").set_value(["dent"]).run()
    assert not drawn.exception
    count = int(next(c.value for c in drawn.caption if "images, the most" in c.value).split()[0])
    assert 0 < count < 36
    drawn.segmented_control(key="wanted").set_value("test set").run()
    assert "test set" in said(drawn)
    assert "with the annotators" not in said(drawn)


def test_a_image_whose_file_is_gone_is_named_and_the_rest_goes_on(grown: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(grown, tmp_path / "copy")
    gone = select(read(copy), "to label")[3]
    gone.path.unlink()
    drawn = page("images", copy)
    assert len(drawn.image) == 11
    [warning] = drawn.warning
    assert f"{gone.name} cannot be read" in warning.value


def test_names_from_outside_are_no_markup() -> None:
    assert images._plain("a_*b*_[x](y)<i>:red[z]$") == (r"a\_\*b\*\_\[x\]\(y\)\<i\>\:red\[z\]\$")


def test_the_snapshot_is_read_anew_only_when_the_workspace_changes(grown: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(grown, tmp_path / "copy")
    one, mark = current(copy), stamp(copy)
    assert current(copy) is one
    text = (copy / "dsmoe.yaml").read_text()
    (copy / "dsmoe.yaml").write_text(text.replace("pre_annotation_score: 0.3", "pre_annotation_score: 0.9"))
    assert stamp(copy) != mark
    assert current(copy).least_score == 0.9


def test_the_whole_app_draws_its_first_page(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", str(grown)])
    drawn = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not drawn.exception
    assert [h.value for h in drawn.header] == ["Rounds"]
    assert f"`{grown}`" in [c.value for c in drawn.sidebar.caption]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["{}/nothing"], "is no workspace; expected dsmoe.yaml in it.**"),
        ([], "the page got 0 arguments; expected one, the workspace's folder.**"),
        (["a", "b"], "the page got 2 arguments"),
    ],
)
def test_a_missing_workspace_is_said_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", *(a.format(tmp_path) for a in arguments)])
    drawn = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not drawn.exception
    [error] = drawn.error
    assert problem in error.value
    assert not drawn.header


def test_the_workspace_may_lie_in_the_home(isolated: Path) -> None:
    assert workspace_path(["~/boards"]) == isolated / "boards"
