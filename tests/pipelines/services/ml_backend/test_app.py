"""The protocol over HTTP: what Label Studio sends, what it gets, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.studio import task_format
from annotate.studio.protocol import Task
from pipelines.detectors.pre_annotations import pre_annotations
from pipelines.services.ml_backend.app import MAX_BYTES
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.asking import (
    Make,
    Play,
    Promote,
    Scissors,
    click,
    found_by,
    rectangle,
)


def test_everything_but_the_hint_asks_who_is_there(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    body = request_body(task(workspace.images()[0]))

    async def scene(client: httpx.AsyncClient) -> None:
        for wrong in (("label-studio", "guess"), ("someone", "a secret"), ("é", "é")):
            for path in ("/health", "/versions"):
                assert (await client.get(path, auth=wrong)).status_code == 401
            for path in ("/setup", "/predict"):
                refused = await client.post(path, json=body, auth=wrong)
                assert refused.status_code == 401
                assert refused.headers["WWW-Authenticate"].startswith("Basic")
        client.auth = None  # type: ignore[assignment]  # httpx takes it back this way
        assert (await client.get("/health")).status_code == 401
        for action in ("START_TRAINING", "ANNOTATION_CREATED"):
            assert (await client.post("/webhook", json={"action": action})).status_code == 204

    play(scene)


def test_setup_tells_the_version_and_needs_no_token(
    play: Play, promote: Promote, workspace: Workspace
) -> None:
    promote("m1")
    version = workspace.prediction_version("m1")
    body = {"project": "1.17", "schema": "<View/>", "hostname": "http://localhost:8080"}

    async def scene(client: httpx.AsyncClient) -> None:
        answer = await client.post("/setup", json={**body, "access_token": "no good", "extra_params": None})
        assert answer.json() == {"model_version": version}
        assert (await client.get("/versions")).json() == {"versions": [version]}
        health = (await client.get("/health")).json()
        assert health == {"status": "UP", "model_version": version, "waiting": 0, "problem": None}

    play(scene)


def test_live_pre_annotations_are_those_that_would_have_been_pushed(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    images = workspace.images()[:6]
    classes = workspace.class_book().vocabulary().names
    pushed = []
    for image in images:
        detections = pre_annotations(found_by(workspace, "m1", image), workspace.settings.round)
        pushed += task_format.task_json(Task(image, 0, "ranked", 0, detections), "", classes)["predictions"]
    assert any(len(prediction["result"]) > 1 for prediction in pushed)

    async def scene(client: httpx.AsyncClient) -> None:
        answer = await client.post("/predict", json=request_body(*map(task, images)))
        assert answer.status_code == 200
        assert answer.json() == {"results": pushed}

    play(scene)


def test_a_task_of_the_blind_audit_stays_bare_and_its_clicks_are_answered(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    box = found_by(workspace, "m1", image).detections[0].box
    blind = task(image)
    blind["data"]["audit"] = task_format.BLIND
    point = click(50 * (box.x1 + box.x2) / image.width, 50 * (box.y1 + box.y2) / image.height, "rust")

    async def scene(client: httpx.AsyncClient) -> None:
        assert (await client.post("/predict", json=request_body(blind))).json() == {"results": [[]]}
        (answer,) = (await client.post("/predict", json=request_body(blind, result=[point]))).json()[
            "results"
        ]
        assert len(answer["result"]) == 1

    play(scene)


def test_a_class_that_the_page_lacks_is_left_out(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    """One such box, and Label Studio would show an error in place of the image."""
    promote("m1")
    body = request_body(*map(task, workspace.images()))
    everything = {"rust", "brick", "plum"}

    async def scene(client: httpx.AsyncClient) -> None:
        for classes in (everything, {"rust"}):
            labels = "".join(f'<Label value="{name}"/>' for name in classes)
            config = f'<View><RectangleLabels name="label">{labels}</RectangleLabels></View>'
            answer = (await client.post("/predict", json={**body, "label_config": config})).json()
            regions = [region for prediction in answer["results"] for region in prediction["result"]]
            assert {r["value"]["rectanglelabels"][0] for r in regions} == classes

    play(scene)


def test_a_click_is_answered_with_the_box_under_it_in_the_class_of_the_tool(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    detection = found_by(workspace, "m1", image).detections[0]
    x = 100 * (detection.box.x1 + detection.box.width / 2) / image.width
    y = 100 * (detection.box.y1 + detection.box.height / 2) / image.height

    async def scene(client: httpx.AsyncClient) -> None:
        for label in ("rust", "brick", "plum"):
            body = request_body(task(image), result=[click(x, y, label)])
            (answer,) = (await client.post("/predict", json=body)).json()["results"]
            (region,) = answer["result"]
            assert (region["from_name"], region["to_name"]) == ("label", "image")
            assert region["type"] == "rectanglelabels"
            assert region["value"]["rectanglelabels"] == [label]
            assert region["value"]["x"] == pytest.approx(100 * detection.box.x1 / image.width)
            assert region["value"]["width"] == pytest.approx(100 * detection.box.width / image.width)
            assert region["score"] == pytest.approx(detection.probabilities[label])
            assert answer["model_version"] == workspace.prediction_version("m1")
            again = (await client.post("/predict", json=body)).json()["results"]
            assert again == [answer]  # the same thing clicked twice is one box

    play(scene)


def test_with_mobile_sam_the_box_is_drawn_tight_around_the_mask(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    box = found_by(workspace, "m1", image).detections[0].box
    tight = (int(box.x1) + 1, int(box.y1) + 1, int(box.x2) - 1, int(box.y2))
    point = click(50 * (box.x1 + box.x2) / image.width, 50 * (box.y1 + box.y2) / image.height, "rust")
    scissors = Scissors(image.width, image.height, tight)

    async def scene(client: httpx.AsyncClient) -> None:
        body = request_body(task(image), result=[point])
        (answer,) = (await client.post("/predict", json=body)).json()["results"]
        (region,) = answer["result"]
        corners = [region["value"][name] * image.width / 100 for name in ("x", "y", "width", "height")]
        assert corners == pytest.approx([*tight[:2], tight[2] - tight[0], tight[3] - tight[1]])
        assert scissors.asked["box"] == box

    play(scene, masks=scissors)


def test_the_new_frame_counts_and_not_the_box_that_was_there(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    """The page sends all boxes of the same class, pre-annotations too, and the new one last."""
    promote("m1")
    image = next(p for p in workspace.images() if len(found_by(workspace, "m1", p).detections) > 1)
    there, meant = found_by(workspace, "m1", image).detections[:2]

    def drawn(box: Any, slack: float) -> tuple[float, float, float, float]:
        w, h = image.width, image.height
        corners = (box.x1 - slack, box.y1 - slack, box.width + 2 * slack, box.height + 2 * slack)
        return tuple(100 * v / side for v, side in zip(corners, (w, h, w, h), strict=True))  # type: ignore[return-value]

    old = rectangle(*drawn(there.box, 0), meant.label, origin="prediction")
    new = rectangle(*drawn(meant.box, 2), meant.label, from_name="frame", id="r2")

    async def scene(client: httpx.AsyncClient) -> None:
        body = request_body(task(image), result=[old, new])
        (answer,) = (await client.post("/predict", json=body)).json()["results"]
        (region,) = answer["result"]
        assert region["value"]["x"] == pytest.approx(100 * meant.box.x1 / image.width)
        assert region["value"]["height"] == pytest.approx(100 * meant.box.height / image.height)
        only_old = await client.post("/predict", json=request_body(task(image), result=[old]))
        assert only_old.json() == {"results": [{"result": []}]}

    play(scene)


def test_before_the_first_promotion_there_are_no_pre_annotations_but_a_click_finds_what_stands_out(
    play: Play, request_body: Make, task: Make, workspace: Workspace, blocks: Path
) -> None:
    from pipelines.rounds.simulated_annotator import load_truth

    labelled = next(p for p in load_truth(blocks / "train.json", workspace).values() if p.annotations)
    image, box = labelled.image, labelled.annotations[0].box
    x, y = 100 * (box.x1 + box.x2) / 2 / image.width, 100 * (box.y1 + box.y2) / 2 / image.height

    async def scene(client: httpx.AsyncClient) -> None:
        assert (await client.post("/setup", json={})).json() == {"model_version": None}
        bare = await client.post("/predict", json=request_body(task(image)))
        assert bare.json() == {"results": [[]]}
        body = request_body(task(image), result=[click(x, y, "rust")])
        (answer,) = (await client.post("/predict", json=body)).json()["results"]
        (region,) = answer["result"]
        assert region["value"]["x"] == pytest.approx(100 * box.x1 / image.width, abs=1.1)
        assert region["value"]["width"] == pytest.approx(100 * box.width / image.width, abs=2.2)
        assert "score" not in region
        assert region["meta"]["text"] == ["by contrast: the detector sees nothing here"]

    play(scene, ready=False)


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "expected tasks"),
        (b'{"tasks": []}', "expected tasks"),
        (b'{"tasks": [{"id": 1}]}', "has no data"),
        (b'{"tasks": [{"data": {}}], "params": []}', "no image of this workspace"),
        (b'{"tasks": [{"data": {}}], "params": {"context": {"result": {}}}}', "no list of regions"),
        (b'{"tasks": [{"data": {}}], "label_config": "<View>"}', "no XML"),
    ],
)
def test_what_label_studio_never_sends_is_refused_in_words(
    play: Play, promote: Promote, content: bytes, said: str
) -> None:
    promote("m1")

    async def scene(client: httpx.AsyncClient) -> None:
        answer = await client.post("/predict", content=content)
        assert answer.status_code == 400
        assert said in answer.json()["error"]

    play(scene)


def test_bombs_and_places_that_are_no_numbers_are_refused(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace
) -> None:
    promote("m1")
    one = task(workspace.images()[0])

    async def scene(client: httpx.AsyncClient) -> None:
        for place in ("12", None, True, [1]):
            spoilt = click(1, 1, "rust")
            spoilt["value"]["x"] = place
            answer = await client.post("/predict", json=request_body(one, result=[spoilt]))
            assert answer.status_code == 400
            assert "no number of percent" in answer.json()["error"]
        answer = await client.post("/predict", json={**request_body(one), "label_config": BOMB})
        assert answer.status_code == 400
        assert "declares something" in answer.json()["error"]
        large = await client.post("/webhook", content=b" " * (MAX_BYTES + 1))
        assert large.status_code == 413

    play(scene)


def test_only_images_of_the_workspace_are_read(
    play: Play, promote: Promote, request_body: Make, task: Make, workspace: Workspace, tmp_path: Path
) -> None:
    promote("m1")
    good = workspace.images()[0]
    outside = tmp_path / "outside.png"
    outside.write_bytes(good.path.read_bytes())
    (workspace.path / "images" / "link.png").symlink_to(outside)
    (workspace.path / "studio" / "beside.png").write_bytes(good.path.read_bytes())
    addresses = [
        f"/data/local-files/?d={place}"
        for place in (
            "../outside.png",
            "images/../../outside.png",
            "images/link.png",
            "studio/beside.png",
            str(outside),
            str(outside).replace("/", "%2F"),
            "images",
            "images/none.png",
            "images/%00",
            "",
        )
    ]
    addresses += ["http://127.0.0.1:1/a.png", "file:///etc/passwd", str(good.path), "", "/data/upload/1.png"]

    async def scene(client: httpx.AsyncClient) -> None:
        for address in addresses:
            foreign = {"id": 1, "project": 1, "data": {"image": address}}
            for result in (None, [click(50, 50, "rust")]):
                answer = await client.post("/predict", json=request_body(foreign, result=result))
                assert answer.status_code == 400, address
                assert "no image of this workspace" in answer.json()["error"]
            both = (await client.post("/predict", json=request_body(foreign, task(good)))).json()
            assert both["results"][0] == []  # the others are answered all the same
            assert both["results"][1]["model_version"] == workspace.prediction_version("m1")

    play(scene)
