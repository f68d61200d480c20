"""The page of a run: its curves, what its evaluations found, and its configuration, as one HTML file."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ..errors import ConditionError, TrainingError
from ..files import as_path, read_json, write_text
from ..images import CORRUPTIONS, Condition, parse_conditions
from ..images.attacks import Attack
from ..images.corruptions.groups import group
from ..report.charts.style import template
from ..report.figure_html import element_id, figure_heading, figure_html, figure_json
from ..report.shell import PAGE, Section, asset, body, contents, data_block
from ..report.tables import provenance_table
from ..report.wording import Numbers, joined
from .curve_figures import figures
from .log import Log

_CSS = "summary { cursor: pointer; color: var(--link); margin-bottom: 0.6rem; }\n"
_OF_TRAINING = ("loss", "learning_rate")
_FEW = 3
"""Conditions that the title names."""


def write_curves(
    folder_or_log: str | os.PathLike[str] | Log,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Path:
    """Write the curves of a run: loss, learning rate, and what each evaluation found, by step.

    The file opens with no network. It can be written of a run that is under way, and is the same, byte for
    byte, for the same log.

    Args:
        folder_or_log: the output folder of a run, or its log. What was trained on, and so which conditions of
            the evaluations were seen, is read from the `config.json` beside the log, where there is one.
        path: where the file shall stand; by default `curves.html` in the folder. It is written whole or not
            at all.
        title: of the page; by default, what was trained on.

    Returns:
        The path.

    Raises:
        TrainingError: the folder holds no log, the log has no folder and there is no path, or the path is a
            folder.
        CheckpointError: the log or the configuration is damaged.
        SpaceError: the disk is full.

    Example:
        >>> import tempfile
        >>> log = Log(None)
        >>> log.write({"kind": "step", "step": 0, "loss": 2.3, "learning_rate": 1e-4})
        >>> path = write_curves(log, Path(tempfile.mkdtemp()) / "curves.html")
        >>> "<h1>Fine-tuning</h1>" in path.read_text(encoding="utf-8")
        True
    """
    log, run = _read(folder_or_log)
    if path is None and log.path is None:
        raise TrainingError(
            "The log has no folder, and there is no path.",
            expected="the name of a file",
            remedy='Give one, such as path="curves.html".',
        )
    target = Path(path) if path is not None else (log.path or Path()).parent / "curves.html"
    if target.is_dir():
        raise TrainingError(
            f"{target} is a folder.", expected="the name of a file", remedy="Add one, such as curves.html."
        )
    steps, evaluations, config = log.frame("step"), log.frame("evaluation"), run.get("config") or {}
    kinds = _kinds(dict.fromkeys(evaluations["condition"]), config) if config else {}
    shown = [
        (element_id(place, name), name, figure)
        for place, (name, figure) in enumerate(figures(steps, evaluations, kinds).items(), start=1)
    ]
    of_training = [each for each in shown if each[1] in _OF_TRAINING]
    of_evaluation = [each for each in shown if each[1] not in _OF_TRAINING]
    sections = []
    if of_training:
        sections.append(_section("Training", "", of_training))
    if of_evaluation:
        sections.append(_section("Evaluation", _table(evaluations, kinds), of_evaluation))
    if run:
        table = f'<div class="scroll provenance">{provenance_table(run)}</div>'
        sections.append(
            Section("Configuration", f"<details><summary>All settings</summary>{table}</details>")
        )
    templates = {"light": template().to_plotly_json(), "dark": template(dark=True).to_plotly_json()}
    write_text(
        target,
        PAGE.substitute(
            title=html.escape(title or _title(config)),
            css=asset("report.css") + _CSS,
            subject=_subject(steps, config),
            contents=contents(sections),
            body=body(sections),
            data=data_block("templates", json.dumps(templates))
            + "".join(data_block(f"{element}-data", figure_json(figure)) for element, _, figure in shown),
            plotly=get_plotlyjs(),
            script=asset("report.js"),
        ),
    )
    return target


def _section(heading: str, text: str, shown: Sequence[tuple[str, str, go.Figure]]) -> Section:
    return Section(
        heading,
        text + "\n".join(figure_html(*each) for each in shown),
        [(f"{element}-title", figure_heading(name, figure)) for element, name, figure in shown],
    )


def _read(folder_or_log: str | os.PathLike[str] | Log) -> tuple[Log, dict[str, Any]]:
    """The log, and what the `config.json` beside it says of the run."""
    if isinstance(folder_or_log, Log):
        log = folder_or_log
    else:
        log = Log(as_path(folder_or_log, "folder_or_log", TrainingError) / "log.jsonl", writes=False)
        if log.path is None or not log.path.exists():
            raise TrainingError(
                f"{os.fspath(folder_or_log)} holds no log.jsonl.",
                expected="the output folder of a fine-tuning run that has made a step",
                remedy="Name that folder.",
            )
    described = None if log.path is None else log.path.parent / "config.json"
    if described is None or not described.exists():
        return log, {}
    run = read_json(described)
    return log, run if isinstance(run, dict) else {}


def _title(config: Mapping[str, Any]) -> str:
    if not config:
        return "Fine-tuning"
    conditions = _trained_on(config) or ["clean images"]
    return (
        f"Fine-tuning on {joined(conditions) if len(conditions) <= _FEW else f'{len(conditions)} conditions'}"
    )


def _subject(steps: pd.DataFrame, config: Mapping[str, Any]) -> str:
    """What the run is and how far it is, as a list of definitions."""
    said = {"Steps": "none yet"}
    if len(steps):
        made, planned = int(steps["step"].iloc[-1]) + 1, config.get("steps")
        said["Steps"] = f"{made:,}" + (f" of {planned:,}" if planned and planned != made else "")
        if "images_per_second" in steps:
            speed = float(steps["images_per_second"].median())
            said["Speed"] = f"{speed:,.{0 if speed >= 100 else 1}f} images per second (median)"
    if config.get("batch_size"):
        said["Batch"] = f"{config['batch_size']:,} images"
    if conditions := _trained_on(config):
        said["Trained on"] = ", ".join(conditions)
        if isinstance(config.get("p_clean"), int | float):
            said["Clean images"] = f"{100 * config['p_clean']:g} %"
    rows = "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in said.items())
    return f"<dl>{rows}</dl>"


def _table(evaluations: pd.DataFrame, kinds: Mapping[str, str]) -> str:
    """The last evaluation in numbers, beside the first one's accuracy."""
    first, last = int(evaluations["step"].min()), int(evaluations["step"].max())
    share, probability = Numbers("share"), Numbers("probability")
    accuracy_first = evaluations[evaluations["step"] == first].set_index("condition")["top1_accuracy"]
    rows = []
    for row in evaluations[evaluations["step"] == last].to_dict("records"):
        condition = str(row["condition"])
        cells = [share.value(accuracy_first.get(condition, float("nan")))] if first < last else []
        cells += [
            share.value(row["top1_accuracy"]) + _interval(share, row["top1_low"], row["top1_high"]),
            probability.value(row["correct_probability"])
            + _interval(probability, row["correct_probability_low"], row["correct_probability_high"]),
        ]
        rows.append(
            f"<tr><td>{html.escape(condition)}</td><td>{kinds.get(condition, '–')}</td>"
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + "</tr>"
        )
    before = [f"accuracy at step {first:,}"] if first < last else []
    heads = ("condition", "in training", *before, f"accuracy at step {last:,}", "correct-class probability")
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    return (
        "<p>In brackets: 95 % intervals over images.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="The last evaluation"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def _interval(numbers: Numbers, low: float, high: float) -> str:
    return (
        ""
        if pd.isna(low) or pd.isna(high)
        else f" [{numbers.value(low)}, {numbers.value(high)}]".replace(" %", "")
    )


def _trained_on(config: Mapping[str, Any]) -> list[str]:
    """The conditions that corrupted any image."""
    return [] if config.get("p_clean") == 1 else [str(spec) for spec in config.get("conditions") or ()]


def _kinds(evaluated: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """For each condition of the evaluations, how it stands to what was trained on: one of `KINDS`."""
    trained = [key for spec in _trained_on(config) for key in _keys(spec)]
    names, families = {key.name for key in trained}, {key.family for key in trained}
    # The objectives of adversarial training make attacks of their own, with settings of their own.
    loss = config.get("loss")
    if isinstance(loss, Mapping) and loss.get("kind") in ("Adversarial", "Trades"):
        names.add("attack")
    kinds = {}
    for name in evaluated:
        keys = _keys(name)
        if name == "clean":
            kinds[name] = "clean"
        elif all(key in trained for key in keys):
            kinds[name] = "seen"
        elif any(key.name in names for key in keys):
            kinds[name] = "seen at another strength"
        else:
            kinds[name] = "of a seen family" if any(key.family in families for key in keys) else "unseen"
    return kinds


class _Key(NamedTuple):
    """What a condition is, and how strong."""

    family: str
    name: str
    strength: Any


def _keys(spec: str) -> list[_Key]:
    """The key of each condition that `spec` names."""
    try:
        return [_key(condition) for condition in parse_conditions([spec])]
    except ConditionError:
        return list(_keys_by_name(spec))


def _key(condition: Condition) -> _Key:
    if isinstance(condition.corruption, Attack):
        return _Key("attack", "attack", condition.corruption)
    if isinstance(condition.corruption, str):
        strength = (condition.severity, condition.jpeg_quality)
        return _of_registry(condition.corruption, strength)
    name = condition.name.partition(":")[0]
    return _Key(name, name, condition.corruption)


def _of_registry(name: str, strength: Any) -> _Key:
    return _Key(CORRUPTIONS[name].family if name in CORRUPTIONS else name, name, strength)


def _keys_by_name(spec: str) -> Iterator[_Key]:
    """One's own operations, of which the names alone are known, and corruptions whose files are not here."""
    for name in spec.split(","):
        matched = re.fullmatch(r"(\w+)@([1-5])(?:-([1-5]))?", name)
        if matched is None:
            yield _Key(name, name, None)
        else:
            first, last = int(matched[2]), int(matched[3] or matched[2])
            corruptions = group(matched[1]) or (matched[1],)
            yield from (
                _of_registry(each, (level, None)) for each in corruptions for level in range(first, last + 1)
            )
