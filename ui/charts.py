"""Vega-Lite specifications of the charts (https://vega.github.io/vega-lite/docs/). Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from annotate.review.sample import expert_name
from dsmoe_core.schema import Outcome
from pipelines.workspace.round_summary import RoundSummary
from ui.tables import decision

Spec = dict[str, Any]

OUTCOME_COLOURS = {
    Outcome.ACCEPTED: "#009e73",
    Outcome.MOVED: "#56b4e9",
    Outcome.RELABELLED: "#e69f00",
    Outcome.DELETED: "#d55e00",
}
"""Colours of Okabe and Ito's palette, which colour-blind people can distinguish."""

TEXT_COLOUR = "#17242d"
HEIGHT = 300
"""Pixels."""


def learning_curve(rounds: Sequence[RoundSummary]) -> Spec | None:
    """mAP on the fixed test set over labelled boxes; None before the first model was evaluated."""
    points = [
        {
            "boxes": row.boxes,
            "metric": metric,
            "value": value,
            "round": row.round,
            "decision": decision(row),
        }
        for row in rounds
        for metric, value in (("mAP@.5", row.map50), ("mAP@.5:.95", row.map))
        if value is not None
    ]
    if not points:
        return None
    colours = {"domain": ["mAP@.5", "mAP@.5:.95"], "range": ["#0b6e99", "#b06a00"]}
    shapes = {"domain": ["promoted", "refused"], "range": ["circle", "cross"]}
    tooltips = [_tooltip(name) for name in ("round", "boxes", "metric", "decision")]
    return {
        "data": {"values": points},
        "height": HEIGHT,
        "encoding": {
            "x": {
                "field": "boxes",
                "type": "quantitative",
                "title": "boxes labelled so far",
                "scale": {"zero": False, "padding": 24},
                "axis": {"tickMinStep": 1, "tickCount": 6, "grid": False},
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": "mAP on the test set",
                "scale": {"zero": True, "nice": True},
            },
            "color": {"field": "metric", "type": "nominal", "title": None, "scale": colours},
        },
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2.5}},
            {
                "mark": {"type": "point", "filled": True, "size": 120, "opacity": 1},
                "encoding": {
                    "shape": {"field": "decision", "type": "nominal", "title": None, "scale": shapes},
                    "tooltip": [*tooltips, _tooltip("value", ".3f")],
                },
            },
            {
                "transform": [{"filter": "datum.metric == 'mAP@.5'"}],
                "mark": {"type": "text", "dy": -14, "fontSize": 13},
                "encoding": {"text": {"field": "value", "format": ".2f"}},
            },
        ],
        "config": _font_config(),
    }


def corrections(rounds: Sequence[RoundSummary]) -> Spec | None:
    """Outcomes of the pre-annotations as shares per round; None if there were no pre-annotations yet."""
    bars = [
        {"round": f"round {row.round}", "outcome": str(outcome), "share": share, "order": order}
        for row in rounds
        for order, outcome in enumerate(OUTCOME_COLOURS)
        if (share := row.share(outcome)) is not None
    ]
    if not bars:
        return None
    scale = {"domain": [str(o) for o in OUTCOME_COLOURS], "range": list(OUTCOME_COLOURS.values())}
    return {
        "data": {"values": bars},
        "height": HEIGHT,
        "mark": {"type": "bar", "size": min(46, 200 // len(rounds))},
        "encoding": {
            "y": {"field": "round", "type": "nominal", "title": None, "sort": None},
            "x": {
                "field": "share",
                "type": "quantitative",
                "title": "share of the pre-annotated boxes",
                "axis": {"format": "%"},
                "scale": {"domain": [0, 1]},
            },
            "color": {"field": "outcome", "type": "nominal", "title": None, "scale": scale, "sort": None},
            "order": {"field": "order"},
            "tooltip": [_tooltip("round"), _tooltip("outcome"), _tooltip("share", ".0%")],
        },
        "config": _font_config(),
    }


def heat_map(use: Mapping[str, Sequence[float]]) -> Spec:
    """Share of the boxes of each class (rows) that each expert leads (columns); darker for a larger share."""
    names = [expert_name(i) for i in range(len(next(iter(use.values()))))]
    cells = [
        {"class": label, "expert": names[i], "share": share}
        for label, shares in use.items()
        for i, share in enumerate(shares)
    ]
    highest = max(max(shares) for shares in use.values())
    scale = {"range": ["#f7fbff", "#084594"], "domain": [0, highest]}
    # White text on dark cells, dark text on light ones.
    text_colour = {
        "condition": {"test": f"datum.share > {highest * 0.55}", "value": "white"},
        "value": TEXT_COLOUR,
    }
    return {
        "data": {"values": cells},
        "height": 42 * len(use),
        "encoding": {
            "x": {
                "field": "expert",
                "type": "nominal",
                "title": None,
                "sort": names,
                "axis": {"orient": "top", "labelAngle": 0},
            },
            "y": {"field": "class", "type": "nominal", "title": None, "sort": list(use)},
        },
        "layer": [
            {
                "mark": {"type": "rect", "stroke": "white", "strokeWidth": 2},
                "encoding": {
                    "color": {"field": "share", "type": "quantitative", "scale": scale, "legend": None},
                    "tooltip": [_tooltip("class"), _tooltip("expert"), _tooltip("share", ".0%")],
                },
            },
            {
                "mark": {"type": "text", "fontSize": 13},
                "encoding": {"text": {"field": "share", "format": ".0%"}, "color": text_colour},
            },
        ],
        "config": _font_config(),
    }


def _tooltip(field: str, number_format: str | None = None) -> dict[str, str]:
    if number_format is None:
        return {"field": field}
    return {"field": field, "type": "quantitative", "format": number_format}


def _font_config() -> dict[str, Any]:
    return {
        "axis": {"labelFontSize": 13, "titleFontSize": 13, "titleFontWeight": "normal", "labelLimit": 220},
        "legend": {"labelFontSize": 13, "orient": "top"},
        "view": {"stroke": None},
    }
