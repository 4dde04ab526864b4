"""Label Studio's protocol over HTTP: requests, responses and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.studio import task_format
from annotate.studio.protocol import Task
from pipelines.detectors.pre_annotations import shown_detections
from pipelines.services.ml_backend.app import MAX_BODY_BYTES
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.stubs import (
    FakeMasks,
    MakeJson,
    Promote,
    RunScenario,
    click,
    rectangle,
    stub_prediction,
)


def test_all_paths_but_the_webhook_need_credentials(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    body = request_body(task(workspace.images()[0]))

    async def scenario(client: httpx.AsyncClient) -> None:
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

    run_scenario(scenario)


def test_setup_returns_the_version_and_ignores_the_token(
    run_scenario: RunScenario, promote: Promote, workspace: Workspace
) -> None:
    promote("m1")
    version = workspace.prediction_version("m1")
    body = {"project": "1.17", "schema": "<View/>", "hostname": "http://localhost:8080"}

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/setup", json={**body, "access_token": "no good", "extra_params": None})
        assert answer.json() == {"model_version": version}
        assert (await client.get("/versions")).json() == {"versions": [version]}
        health = (await client.get("/health")).json()
        assert health == {"status": "UP", "model_version": version, "waiting": 0, "problem": None}

    run_scenario(scenario)


def test_live_pre_annotations_equal_pushed_ones(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    images = workspace.images()[:6]
    classes = workspace.class_book().vocabulary().names
    pushed = []
    for image in images:
        detections = shown_detections(workspace, stub_prediction(workspace, "m1", image))
        pushed += task_format.task_json(Task(image, 0, "ranked", 0, detections), "", classes)["predictions"]
    assert any(len(prediction["result"]) > 1 for prediction in pushed)

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/predict", json=request_body(*map(task, images)))
        assert answer.status_code == 200
        assert answer.json() == {"results": pushed}

    run_scenario(scenario)


def test_blind_audit_task_has_no_pre_annotations_but_smart_tools_work(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    box = stub_prediction(workspace, "m1", image).detections[0].box
    blind = task(image)
    blind["data"]["audit"] = task_format.BLIND
    point = click(50 * (box.x1 + box.x2) / image.width, 50 * (box.y1 + box.y2) / image.height, "rust")

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.post("/predict", json=request_body(blind))).json() == {"results": [[]]}
        (answer,) = (await client.post("/predict", json=request_body(blind, result=[point]))).json()[
            "results"
        ]
        assert len(answer["result"]) == 1

    run_scenario(scenario)


def test_classes_missing_in_the_label_config_are_left_out(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    """Label Studio shows an error instead of the image for one box of an unknown class."""
    promote("m1")
    body = request_body(*map(task, workspace.images()))
    everything = {"rust", "brick", "plum"}

    async def scenario(client: httpx.AsyncClient) -> None:
        for classes in (everything, {"rust"}):
            labels = "".join(f'<Label value="{name}"/>' for name in classes)
            config = f'<View><RectangleLabels name="label">{labels}</RectangleLabels></View>'
            answer = (await client.post("/predict", json={**body, "label_config": config})).json()
            regions = [region for prediction in answer["results"] for region in prediction["result"]]
            assert {r["value"]["rectanglelabels"][0] for r in regions} == classes

    run_scenario(scenario)


def test_click_returns_the_box_around_it_with_the_class_of_the_tool(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    detection = stub_prediction(workspace, "m1", image).detections[0]
    x = 100 * (detection.box.x1 + detection.box.width / 2) / image.width
    y = 100 * (detection.box.y1 + detection.box.height / 2) / image.height

    async def scenario(client: httpx.AsyncClient) -> None:
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

    run_scenario(scenario)


def test_mobile_sam_tightens_the_box_to_the_mask(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    image = workspace.images()[0]
    box = stub_prediction(workspace, "m1", image).detections[0].box
    tight = (int(box.x1) + 1, int(box.y1) + 1, int(box.x2) - 1, int(box.y2))
    point = click(50 * (box.x1 + box.x2) / image.width, 50 * (box.y1 + box.y2) / image.height, "rust")
    fake_masks = FakeMasks(image.width, image.height, tight)

    async def scenario(client: httpx.AsyncClient) -> None:
        body = request_body(task(image), result=[point])
        (answer,) = (await client.post("/predict", json=body)).json()["results"]
        (region,) = answer["result"]
        corners = [region["value"][name] * image.width / 100 for name in ("x", "y", "width", "height")]
        assert corners == pytest.approx([*tight[:2], tight[2] - tight[0], tight[3] - tight[1]])
        assert fake_masks.last_prompt["box"] == box

    run_scenario(scenario, masks=fake_masks)


def test_the_new_frame_is_the_prompt_not_the_existing_box(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    """Label Studio sends all boxes of the class, pre-annotations too, and the new frame last."""
    promote("m1")
    image = next(p for p in workspace.images() if len(stub_prediction(workspace, "m1", p).detections) > 1)
    existing, target = stub_prediction(workspace, "m1", image).detections[:2]

    def percent(box: Any, slack: float) -> tuple[float, float, float, float]:
        w, h = image.width, image.height
        corners = (box.x1 - slack, box.y1 - slack, box.width + 2 * slack, box.height + 2 * slack)
        return tuple(100 * v / side for v, side in zip(corners, (w, h, w, h), strict=True))  # type: ignore[return-value]

    old = rectangle(*percent(existing.box, 0), target.label, origin="prediction")
    new = rectangle(*percent(target.box, 2), target.label, from_name="frame", id="r2")

    async def scenario(client: httpx.AsyncClient) -> None:
        body = request_body(task(image), result=[old, new])
        (answer,) = (await client.post("/predict", json=body)).json()["results"]
        (region,) = answer["result"]
        assert region["value"]["x"] == pytest.approx(100 * target.box.x1 / image.width)
        assert region["value"]["height"] == pytest.approx(100 * target.box.height / image.height)
        only_old = await client.post("/predict", json=request_body(task(image), result=[old]))
        assert only_old.json() == {"results": [{"result": []}]}

    run_scenario(scenario)


def test_before_the_first_promotion_a_click_returns_the_box_by_contrast(
    run_scenario: RunScenario, request_body: MakeJson, task: MakeJson, workspace: Workspace, blocks: Path
) -> None:
    from pipelines.rounds.simulated_annotator import load_truth

    labelled = next(p for p in load_truth(blocks / "train.json", workspace).values() if p.annotations)
    image, box = labelled.image, labelled.annotations[0].box
    x, y = 100 * (box.x1 + box.x2) / 2 / image.width, 100 * (box.y1 + box.y2) / 2 / image.height

    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.post("/setup", json={})).json() == {"model_version": None}
        without_prompt = await client.post("/predict", json=request_body(task(image)))
        assert without_prompt.json() == {"results": [[]]}
        body = request_body(task(image), result=[click(x, y, "rust")])
        (answer,) = (await client.post("/predict", json=body)).json()["results"]
        (region,) = answer["result"]
        assert region["value"]["x"] == pytest.approx(100 * box.x1 / image.width, abs=1.1)
        assert region["value"]["width"] == pytest.approx(100 * box.width / image.width, abs=2.2)
        assert "score" not in region
        assert region["meta"]["text"] == ["from the contrast: no detection here"]

    run_scenario(scenario, ready=False)


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'{"tasks": []}',
        b'{"tasks": [{"id": 1}]}',
        b'{"tasks": [{"data": {}}], "params": []}',
        b'{"tasks": [{"data": {}}], "params": {"context": {"result": {}}}}',
        b'{"tasks": [{"data": {}}], "label_config": "<View>"}',
    ],
)
def test_malformed_body_is_refused_with_400(
    run_scenario: RunScenario, promote: Promote, content: bytes
) -> None:
    promote("m1")

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/predict", content=content)
        assert answer.status_code == 400
        assert answer.json()["error"]

    run_scenario(scenario)


def test_non_numeric_positions_entity_declarations_and_large_bodies_are_refused(
    run_scenario: RunScenario, promote: Promote, request_body: MakeJson, task: MakeJson, workspace: Workspace
) -> None:
    promote("m1")
    valid_task = task(workspace.images()[0])

    async def scenario(client: httpx.AsyncClient) -> None:
        for position in ("12", None, True, [1]):
            malformed = click(1, 1, "rust")
            malformed["value"]["x"] = position
            answer = await client.post("/predict", json=request_body(valid_task, result=[malformed]))
            assert answer.status_code == 400
        answer = await client.post("/predict", json={**request_body(valid_task), "label_config": BOMB})
        assert answer.status_code == 400
        large = await client.post("/webhook", content=b" " * (MAX_BODY_BYTES + 1))
        assert large.status_code == 413

    run_scenario(scenario)


def test_only_images_of_the_workspace_are_read(
    run_scenario: RunScenario,
    promote: Promote,
    request_body: MakeJson,
    task: MakeJson,
    workspace: Workspace,
    tmp_path: Path,
) -> None:
    promote("m1")
    good = workspace.images()[0]
    outside = tmp_path / "outside.png"
    outside.write_bytes(good.path.read_bytes())
    (workspace.path / "images" / "link.png").symlink_to(outside)
    (workspace.path / "studio" / "other.png").write_bytes(good.path.read_bytes())
    addresses = [
        f"/data/local-files/?d={name}"
        for name in (
            "../outside.png",
            "images/../../outside.png",
            "images/link.png",
            "studio/other.png",
            str(outside),
            str(outside).replace("/", "%2F"),
            "images",
            "images/none.png",
            "images/%00",
            "",
        )
    ]
    addresses += ["http://127.0.0.1:1/a.png", "file:///etc/passwd", str(good.path), "", "/data/upload/1.png"]

    async def scenario(client: httpx.AsyncClient) -> None:
        for address in addresses:
            foreign = {"id": 1, "project": 1, "data": {"image": address}}
            for result in (None, [click(50, 50, "rust")]):
                answer = await client.post("/predict", json=request_body(foreign, result=result))
                assert answer.status_code == 400, address
            both = (await client.post("/predict", json=request_body(foreign, task(good)))).json()
            assert both["results"][0] == []
            assert both["results"][1]["model_version"] == workspace.prediction_version("m1")

    run_scenario(scenario)
