"""dsmoe benchmark words, held-out, forgetting"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import comparison
from pipelines.cli.options import Size, SizeOption, Start, finite
from pipelines.cli.training_command import LabelsOption, TrainingOptions, names_of, training_command

WithOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="DIR",
        help="Another data set like --data to train on as well, with its own descriptions; can be repeated.",
    ),
]
SubsetsOption = Annotated[
    float,
    typer.Option(
        "--class-subsets",
        min=0.0,
        max=1.0,
        callback=finite,
        help="Share of training steps that score a subset of the classes only.",
    ),
]


@training_command("words")
def text_ablation(
    options: TrainingOptions,
    *,
    size: SizeOption = Size.NANO,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also train with each of the other texts: 4 trainings per seed.")
    ] = False,
    extra: WithOption = None,
    class_subsets: SubsetsOption = 0.0,
    start: comparison.StartOption = Start.SCRATCH,
) -> None:
    """One model evaluated with right, name-only, random and swapped class descriptions.

    Example: `dsmoe benchmark words --data deeppcb --with aluminium --class-subsets 0.5 --minutes 8`
    """
    from pipelines.benchmarks.comparison.text_ablation import run_text_ablation
    from pipelines.benchmarks.results import update_result

    models, budget = comparison.started_models(options.px, size, start), options.budget()
    options.measure(
        lambda store, report: run_text_ablation(
            lambda text: models.dsmoe_preset(size.value, vocabulary=text, class_subsets=class_subsets),
            options.data,
            budget,
            options.seed_numbers,
            store,
            report,
            retrain=retrain,
            start=models.start,
            extra=extra or (),
        ),
        update_result,
    )


@training_command("held-out", file="words")
def held_out(
    options: TrainingOptions,
    *,
    label: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="The class to hold out; default: the one with most training boxes.",
        ),
    ] = None,
    extra: WithOption = None,
    class_subsets: SubsetsOption = 0.0,
    start: comparison.StartOption = Start.SCRATCH,
    size: SizeOption = Size.NANO,
) -> None:
    """Train without a class, then detect it by its right description, its bare name and random words.

    Example: `dsmoe benchmark held-out --data deeppcb --class mousebite --epochs 30 --seeds 3`
    """
    from pipelines.benchmarks.comparison.zero_shot import run_zero_shot
    from pipelines.benchmarks.results import update_result

    models, budget = comparison.started_models(options.px, size, start), options.budget()
    model = models.dsmoe_preset(size.value, class_subsets=class_subsets)
    options.measure(
        lambda store, report: run_zero_shot(
            model,
            options.data,
            label,
            budget,
            options.seed_numbers,
            store,
            report,
            start=models.start,
            extra=extra or (),
        ),
        update_result,
    )


@training_command("forgetting", seeds=1, without=("minutes", "epochs"))
def forgetting(
    options: TrainingOptions,
    *,
    new: Annotated[
        str, typer.Option("--new", metavar="CLASS,CLASS,...", help="Classes of the second training.")
    ],
    images_seen: Annotated[
        int, typer.Option("--images-seen", min=1, help="Images shown to the network in each training.")
    ] = 4000,
    labels: LabelsOption = 1.0,
    start: comparison.StartOption = Start.SCRATCH,
    size: SizeOption = Size.NANO,
) -> None:
    """Train on some classes, then on images of new ones, with and without distillation from the first model.

    Example: `dsmoe benchmark forgetting --data neu_det --new scratches,inclusion --images-seen 4000`
    """
    from pipelines.benchmarks.comparison.forgetting import run_forgetting
    from pipelines.benchmarks.comparison.protocol import Budget
    from pipelines.benchmarks.comparison.variants import require_shares
    from pipelines.benchmarks.results import write_result

    require_shares([labels])
    models = comparison.started_models(options.px, size, start)
    budget, names = Budget(images=images_seen), names_of(new)
    options.measure(
        lambda store, report: run_forgetting(
            models,
            size.value,
            options.data,
            names,
            budget,
            options.seed_numbers,
            store,
            report,
            train_share=labels,
        ),
        write_result,
    )
