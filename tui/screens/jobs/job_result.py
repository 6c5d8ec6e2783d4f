"""What a finished job came to, in a few lines: an adapter, a vector, a layer, a dose, the proof of a push."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windowshift.core.contract.records import JobRow
from windowshift.tui.text import formats


def short_name(job: JobRow) -> str:
    """Return a job's label without what its kind says already, so that a narrow list shows what tells it apart."""
    if job.kind == "match":
        return job.label.removeprefix("alpha of ").replace(" that matches ", " = ")
    return job.label


def result_lines(job: JobRow) -> list[str]:
    """Return the lines; none for a job whose result is its completions alone."""
    found = job.result
    lines = [f"adapter {found['adapter']}"] if "adapter" in found else []
    if found.get("left_out"):
        lines.append(f"{found['left_out']} examples were left out: the messages of the job say why")
    if "kept" in found:
        without = f"; {found['unscored_of_source']} have no score" if found.get("unscored_of_source") else ""
        lines.append(f"{found['kept']} of {found['of']} completions are kept{without}")
    if job.kind == "extract" and "vector" in found:
        kind = f", {found['control']} control of {found['of']}" if found.get("control") else ""
        lines.append(f"{found['layers']} layers of width {found['width']}{kind}: {found['vector']}")
    elif job.kind == "sweep" and "layer" in found:
        lines.append(f"layer {found['layer']} of {len(found['ranges'])}: {found['rule']}")
    elif job.kind == "dose" and "points" in found:
        lines.append(_curve(found))
    elif job.kind == "match" and found.get("alpha") is not None:
        lines.append(_match(found))
    elif job.kind == "iso_kl" and found.get("alpha") is not None:
        lines.append(_iso_kl(found))
    lines += [_proof(one) for one in found.get("fired", ())]
    return lines


def _curve(found: Mapping[str, Any]) -> str:
    points = found["points"]
    ends = f"alpha {_number(points[0]['alpha'])} to {_number(points[-1]['alpha'])}"
    means = f"mean {formats.plain(points[0]['mean'])} to {formats.plain(points[-1]['mean'])}"
    return f"{len(points)} points at layer {found['layer']}: {ends}, {means}; n {points[0]['n']} each"


def _match(found: Mapping[str, Any]) -> str:
    low, high = (
        "beyond the curve" if found[end] is None else _number(found[end]) for end in ("alpha_low", "alpha_high")
    )
    target = found["target"]
    interval = formats.interval(target["low"], target["high"])
    alpha = f"alpha {_number(found['alpha'])} [{low}, {high}] at layer {found['layer']}, dose {_number(found['dose'])}"
    return f"{alpha}: mean {formats.plain(target['value'])} {interval} under {found['group']}, n {target['n']}"


def _iso_kl(found: Mapping[str, Any]) -> str:
    low, high = ("not measured" if found[end] is None else _number(found[end]) for end in ("alpha_low", "alpha_high"))
    dose = "" if found["dose"] is None else f", dose {_number(found['dose'])}"
    kl = f"95th percentile of KL {found['kl']['value']:.3g} nats a token"
    where = f"{found['kl']['n']:,} tokens of {found['prompts']} completions"
    return f"alpha {_number(found['alpha'])} [{low}, {high}] at layer {found['layer']}{dose}: {kl}, {where}"


def _proof(one: Mapping[str, Any]) -> str:
    ends = dict.fromkeys(_number(one[end]) for end in ("alpha_low", "alpha_high"))
    amount = "projected out" if one["ablate"] else f"alpha {' … '.join(ends)}"
    counts = f"{one['calls']:,} of {one['calls_asked']:,} calls, {one['tokens']:,} of {one['tokens_asked']:,} tokens"
    return f"pushed with {one['vector']}, {amount}, layer {one['layer']}: {counts} changed"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", formats.MINUS)
