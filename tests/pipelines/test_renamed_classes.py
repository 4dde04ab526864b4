"""The loop with a class book in which a class was renamed or removed while it went on; on the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from annotate.studio.fake import FakeStudio
from pipelines.crew import Crew
from pipelines.loop import close_round, open_round
from pipelines.workspace import Workspace
from prompts.class_book import checked

Label = Callable[[Crew], None]


def published(crew: Crew, **renamed: str) -> Crew:
    """Publishes a book in which these classes have new names, and the old ones as aliases.

    Returns:
        Everybody, as the next process would find them.
    """
    workspace = crew.workspace
    content = workspace.class_book().model_dump(mode="json")
    for entry in content["classes"]:
        if entry["name"] in renamed:
            entry.update(name=renamed[entry["name"]], aliases=[*entry["aliases"], entry["name"]])
    checked(content, "as changed").save(workspace.path / "classes.yaml")
    workspace.class_books.publish(None, author="someone", force_reason="for a test")
    studio = FakeStudio(workspace.path / "studio" / "fake.json")
    return replace(crew, workspace=Workspace.open(workspace.path), studio=studio)


def test_the_test_set_is_judged_under_the_new_name(crew: Crew, label: Label) -> None:
    open_round(crew)
    label(crew)
    renamed = published(crew, rust="red_block")
    row = close_round(renamed)
    judged = renamed.workspace.registry.card(row.model or "").evaluation
    assert judged is not None
    assert judged.per_class.keys() == {"red_block", "brick", "plum"}
