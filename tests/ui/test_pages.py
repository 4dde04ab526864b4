"""The pages as Streamlit renders them, on workspaces that the loop made with its stubs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from nasty_names import GROUPS
from streamlit.testing.v1 import AppTest

from dsmoe_core.data.import_account import (
    MAX_NAMED,
    AccountEntry,
    Action,
    ImportAccount,
    Kind,
    Reason,
    Unlabelled,
)
from dsmoe_core.data.set_builder import AnnotationSetBuilder
from dsmoe_core.plain_text import escape_markdown
from pipelines.workspace.import_log import record_import
from pipelines.workspace.workspace import Workspace
from tests.ui.workspaces import make_workspace
from ui.app import workspace_path
from ui.gallery import select_images
from ui.state import cached_snapshot, read_snapshot, workspace_stamp
from ui.views import PAGES, experts, images, imports, rounds

APP = Path(__file__).parents[2] / "ui" / "app.py"


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace without rounds."""
    return make_workspace(tmp_path_factory.mktemp("new"), rounds=0)


@pytest.fixture(scope="module")
def first_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose first round is open; it has no model."""
    return make_workspace(tmp_path_factory.mktemp("first_round"), rounds=0, then_open=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with three closed rounds and an open one."""
    return make_workspace(tmp_path_factory.mktemp("trained"), rounds=3, then_open=True)


def render(title: str, workspace: Path) -> AppTest:
    """Run the registered page of this title once."""

    def script(title: str, workspace: str) -> None:
        from pathlib import Path

        from ui.state import read_snapshot
        from ui.views import PAGES

        (page,) = (page for page in PAGES if page.title == title)
        page.show(read_snapshot(Path(workspace)))

    arguments = {"title": title, "workspace": str(workspace)}
    page = AppTest.from_function(script, kwargs=arguments, default_timeout=60).run()
    assert not page.exception
    return page


def text_of(page: AppTest) -> str:
    """All text outside tables and charts."""
    parts = (*page.markdown, *page.caption, *page.info, *page.warning, *page.error)
    return "\n".join(str(part.value) for part in parts)


@pytest.mark.parametrize("workspace", ["new", "first_round", "trained"])
@pytest.mark.parametrize("title", [page.title for page in PAGES])
def test_every_registered_page_renders(title: str, workspace: str, request: pytest.FixtureRequest) -> None:
    page = render(title, request.getfixturevalue(workspace))
    assert [h.value for h in page.header] == [title]


def test_titles_of_the_registered_pages_are_unique() -> None:
    assert len({page.title.lower() for page in PAGES}) == len(PAGES)


def test_rounds_of_a_new_workspace(new: Path) -> None:
    page = render("Rounds", new)
    assert [i.value for i in page.info] == [rounds.NO_ROUND]
    values = {m.label: m.value for m in page.metric}
    assert (values["mAP@.5 of the model"], values["Images labelled"]) == ("none yet", "0")
    assert not page.dataframe


def test_rounds_before_the_first_model(first_round: Path) -> None:
    page = render("Rounds", first_round)
    assert [i.value for i in page.info] == [rounds.NO_MODEL, rounds.NO_PRE_ANNOTATIONS]
    assert page.dataframe[0].value["Decision"].tolist() == ["with the annotators: 0 of 6 back"]


def test_rounds_of_a_trained_workspace(trained: Path) -> None:
    page = render("Rounds", trained)
    assert not page.info
    table = page.dataframe[0].value
    assert table["Round"].tolist() == [0, 1, 2, 3]
    assert table["Images"].tolist() == [6, 12, 18, 18]
    assert table["Decision"].tolist()[0].startswith("promoted")
    assert len(page.get("vega_lite_chart")) == 2
    accounts = page.dataframe[1].value
    assert accounts["Round"].tolist() == [0, 1, 2]
    assert accounts["Labelled"].tolist() == [6, 6, 6]
    assert (accounts["Boxes"] == accounts["Taken"] + accounts["Clipped"] + accounts["Left out"]).all()
    snapshot = read_snapshot(trained)
    of_champion = [r for r in snapshot.rounds if r.model == snapshot.champion]
    values = {m.label: m.value for m in page.metric}
    assert values["mAP@.5 of the model"] == f"{of_champion[0].map50:.2f}"
    assert values["Images labelled"] == "18"


def test_images_and_boxes_that_were_left_out_are_named(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    entries = tuple(
        AccountEntry(Kind.BOX, Action.LEFT_OUT, f"plate [/{n}] <b>.png", f"task {n}", Reason.NO_CLASS)
        for n in range(MAX_NAMED + 2)
    )
    account = ImportAccount(images_in=1, images_taken=1, boxes_in=len(entries), entries=entries)
    with Workspace.open(copy) as workspace:
        workspace.save_round_account(2, account)
    texts = [element.value for element in render("Rounds", copy).text]
    start = texts.index(str(entries[0]))  # the round's report comes first
    assert texts[start : start + MAX_NAMED] == [str(entry) for entry in entries[:MAX_NAMED]]
    assert len(texts) == start + MAX_NAMED + 1


def test_experts_without_a_model(new: Path) -> None:
    assert [i.value for i in render("Experts", new).info] == [experts.NO_MODEL]


def test_experts_without_predictions(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(copy / "predictions")
    assert [i.value for i in render("Experts", copy).info] == [experts.NO_PREDICTIONS]


def test_experts_of_a_trained_workspace(trained: Path) -> None:
    page = render("Experts", trained)
    assert len(page.get("vega_lite_chart")) == 1
    assert page.dataframe[0].value["Selected for"].tolist() == [100.0]  # the stub has one expert
    page.segmented_control(key="source").set_value("people labelled").run()
    assert not page.exception
    assert len(page.get("vega_lite_chart")) == 1


def test_images_without_predictions_are_sorted_by_name(first_round: Path) -> None:
    page = render("Images", first_round)
    assert [i.value for i in page.info] == [images.NO_PREDICTIONS]
    assert len(page.image) == images.IMAGES_PER_PAGE
    assert "train-000.png" in text_of(page)
    assert "with the annotators" in text_of(page)


def test_images_can_be_filtered_and_paged(trained: Path) -> None:
    def count(page: AppTest) -> int:
        return int(next(c.value for c in page.caption if " images, " in c.value).split()[0])

    page = render("Images", trained)
    assert count(page) == 12
    page.segmented_control(key="filter").set_value("all").run()
    assert count(page) == 36
    first = text_of(page)
    page.get("pagination")[0].set_value(2).run()
    assert not page.exception
    assert text_of(page) != first
    page.multiselect(key="classes").set_value(["dent"]).run()
    assert not page.exception
    assert 0 < count(page) < 36
    page.segmented_control(key="filter").set_value("test set").run()
    assert "test set" in text_of(page)
    assert "with the annotators" not in text_of(page)


def test_missing_image_file_is_named_and_the_others_are_shown(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    missing = select_images(read_snapshot(copy), "to label")[3]
    missing.path.unlink()
    page = render("Images", copy)
    assert len(page.image) == 11
    [warning] = page.warning
    assert escape_markdown(missing.name) in warning.value


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def rendered(part: Any) -> list[Token]:
    """The inline tokens of a Markdown text."""
    return [
        child
        for token in MARKDOWN.parse(part.value)
        for child in token.children or ()
        if child.type != "text"
    ]


@pytest.mark.parametrize("names", GROUPS, ids=str)
def test_names_from_outside_are_text_on_every_page(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # COCO separates folders with backslashes too.
    files = [f"{name}.png" for name in names if "\\" not in name]
    workspace = make_workspace(
        tmp_path, rounds=1, then_open=True, title=names[0], classes=names, images=files
    )
    monkeypatch.setattr(sys, "argv", ["app.py", str(workspace)])
    app = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not app.exception
    title = read_snapshot(workspace).title
    assert next(iter(app.sidebar.markdown)).value == f"**{escape_markdown(title)}**"
    plain = {"text_special", "strong_open", "strong_close", "hardbreak", "code_inline"}
    for shown_page in (None, *(page.title for page in PAGES)):
        page = app if shown_page is None else render(shown_page, workspace)
        parts = [*page.markdown, *page.caption, *page.info, *page.warning, *page.error]
        assert {token.type for part in parts for token in rendered(part)} <= plain
    page = render("Images", workspace)
    page.multiselect(key="classes").set_value(list(names)).run()
    assert page.multiselect(key="classes").options == list(names)
    page.segmented_control(key="filter").set_value("all").run()
    assert not page.exception
    page.multiselect(key="classes").set_value([]).run()
    shown = ""
    for number in (1, 2, 3):
        shown += text_of(page.get("pagination")[0].set_value(number).run())
    assert all(f"**{escape_markdown(name)}**" in shown for name in files)


def test_imports_without_labels(new: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(new, tmp_path / "copy")
    shutil.rmtree(copy / "imports", ignore_errors=True)
    assert [i.value for i in render("Imports", copy).info] == [imports.NO_IMPORT]


IMPORTED_IMAGES = {
    "files": 3,
    "images": 1,
    "unreadable": {"[x](y).png": "it is empty"},
    "duplicates": {"b.png": "a.png"},
    "several_frames": {},
    "intensity_scale": {"text": "value 4095 is white"},
    "clipped": ["a.png"],
}
"""As ``IngestResult.account`` makes it."""


def test_imports_list_what_was_left_out(new: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(new, tmp_path / "copy")
    builder = AnnotationSetBuilder()
    builder.declare(["scratch"])
    draft = builder.image("[b](x).png", "labels.json, image 1", (40, 30))
    draft.add_box((1, 1, 50, 20), "scratch", "labels.json, annotation 1")
    draft.leave_out_box("labels.json, annotation 2", Reason.NO_AREA, "bbox [1, 2, 0, 0]")
    builder.image("empty.png", "labels.json, image 2", (40, 30))
    builder.note("a :red[note]")
    account = builder.build().counting_unlabelled(Unlabelled.IGNORE).account
    record_import(copy, "add", {"annotations": account}, IMPORTED_IMAGES)
    page = render("Imports", copy)
    assert [s.value for s in page.subheader] == [
        "add: images",
        "add: annotations",
        "init: images",
        "init: test",
    ]
    counts, reasons, entries = (page.dataframe[i].value for i in range(3))
    assert counts["In"].tolist() == [2, 2]
    assert counts["Taken"].tolist() == [1, 0]
    assert counts["Clipped"].tolist() == [0, 1]
    assert counts["Left out"].tolist() == [1, 1]
    assert sorted(reasons["Count"].tolist()) == [1, 1, 1]
    assert entries["Image"].tolist() == ["[b](x).png", "[b](x).png", "empty.png"]
    texts = [t.value for t in page.text]
    assert texts[:2] == ["1 of 3 files are used as images.", "value 4095 is white"]
    assert texts[2:5] == ["[x](y).png: it is empty", "b.png: same as a.png", "a.png"]
    assert texts[5] == "a :red[note]"
    assert len(page.warning) == 1
    assert read_snapshot(copy).imports[0].command == "add"


def test_snapshot_is_cached_until_the_workspace_changes(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    cached_snapshot(copy)  # the first opening of a copy merges the database's log, which changes its files
    snapshot, stamp = cached_snapshot(copy), workspace_stamp(copy)
    assert cached_snapshot(copy) is snapshot
    text = (copy / "dsmoe.yaml").read_text()
    (copy / "dsmoe.yaml").write_text(text.replace("pre_annotation_score: null", "pre_annotation_score: 0.9"))
    assert workspace_stamp(copy) != stamp
    assert cached_snapshot(copy).round_settings.pre_annotation_score == 0.9


def test_app_renders_its_first_page(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", str(trained)])
    app = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not app.exception
    assert [h.value for h in app.header] == [PAGES[0].title]
    assert f"`{trained}`" in [c.value for c in app.sidebar.caption]


@pytest.mark.parametrize(
    ("arguments", "value"), [(["{}/nothing"], "{}/nothing"), ([], "0 arguments"), (["a", "b"], "2 arguments")]
)
def test_wrong_workspace_is_shown_as_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], value: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", *(a.format(tmp_path) for a in arguments)])
    app = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not app.exception
    [error] = app.error
    assert escape_markdown(value.format(tmp_path)) in error.value
    assert not app.header


def test_home_folder_in_the_workspace_path_is_expanded(isolated: Path) -> None:
    assert workspace_path(["~/boards"]) == isolated / "boards"
