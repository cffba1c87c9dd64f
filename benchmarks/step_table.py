"""What step.py says of its rows: the targets, the Markdown table and its notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.report import rows_table
from benchmarks.step_contenders import Size
from benchmarks.timing import Target, times_as_fast
from vidadapt.models import resolved_precision


def aimed_at(rows: Sequence[Mapping[str, Any]], seconds: Mapping[str, list[float]]) -> list[Target]:
    """The targets whose contenders were measured."""
    adapted, kept = "adaptformer fp32", "kept for backward, MiB a clip"
    # Behind the sense: a step of the first is how many times as fast as one of the second.
    ratios: list[tuple[str, float, Any, str, str]] = [
        ("AdaptFormer-64: bf16 : fp32, steps/s", 3.0, ">=", "adaptformer bf16", adapted),
        ("AdaptFormer-64 : transformers + LoRA, fp32, steps/s", 1.0, ">=", adapted,
         "transformers-lora fp32"),
        ("AdaptFormer-64 : transformers + LoRA, bf16, steps/s", 1.3, ">=", "adaptformer bf16",
         "transformers-lora bf16"),
        ("AdaptFormer-64, recompute mlp : none, fp32, time", 1.10, "<=", adapted,
         "adaptformer+mlp fp32"),
        ("AdaptFormer-64, recompute block : none, fp32, time", 1.5, "<=", adapted,
         "adaptformer+block fp32"),
        ("AdaptFormer-64 : full, fp32, time", 0.72, "<=", "full fp32", adapted),
        ("LoSA : AdaptFormer-64, fp32, time", 0.6, "<=", adapted, "losa fp32"),
        *(
            (f"V-JEPA 2, {what}: vidadapt : transformers, {kind}, steps/s", 1.0, ">=",
             f"{method} {kind}", f"transformers-{method} {kind}")
            for method, what in (("linear", "linear probe"), ("adaptformer", "AdaptFormer-64"))
            for kind in ("fp32", "bf16")
        ),
    ]  # fmt: skip
    figures: list[tuple[str, float, Any, str, str]] = [
        ("AdaptFormer-64, fp32, share of the matmul rate", 0.90, ">=", adapted, "matmul_share"),
        (f"AdaptFormer-64, recompute mlp, fp32, {kept}", 160, "<=", "adaptformer+mlp fp32",
         "kept_mib_per_clip"),
        (f"AdaptFormer-64, recompute block, fp32, {kept}", 30, "<=", "adaptformer+block fp32",
         "kept_mib_per_clip"),
    ]  # fmt: skip
    by_name = {row["name"]: row for row in rows if row["problem"] is None}
    has_bf16 = resolved_precision(torch.device("cpu"), "auto") == "bf16"
    found = [
        Target(name, goal, sense, times_as_fast(seconds, own, other))
        for name, goal, sense, own, other in ratios
        if own in seconds and other in seconds and (has_bf16 or "bf16" not in own)
    ]
    return found + [
        Target(name, goal, sense, by_name[own][key])
        for name, goal, sense, own, key in figures
        if own in by_name
    ]


COLUMNS = {  # heading: (key, format)
    "trained": ("trainable", ",.0f"),
    "GFLOP/clip": ("gflop_per_clip", ".4g"),
    "step s": ("step_seconds", ".3g"),
    "spread %": ("spread_percent", ".0f"),
    "clips/s": ("clips_per_second", ".3g"),
    "matmul TFLOP/s": ("matmul_tflops", ".3g"),
    "share": ("matmul_share", ".2f"),
    "kept MiB/clip": ("kept_mib_per_clip", ".0f"),
    "peak MiB": ("peak_mib", ",.0f"),
    "hours": ("schedule_hours", ",.3g"),
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    return rows_table(rows, COLUMNS, "step")


def title(size: Size) -> str:
    threads = f", {torch.get_num_threads()} threads" if size.device.type == "cpu" else ""
    return (
        f"{size.backbone}, {size.num_frames} frames of {size.crop_size} x {size.crop_size}, "
        f"{size.batch_size} clips a step, {device_name(size.device)}{threads}."
    )


def notes(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "`transformers-`: its model of the same family, `lora` with peft (rank 8, queries "
        "and values); same batch, loss, autocast and optimiser (SGD with momentum) for all, random "
        "weights in float32. Share: of the rate at which plain matrix products of the model's "
        "layers run in the same round and precision, FLOPs being those of the method without what "
        "it recomputes. Kept: what forward keeps for backward. Peak: model, optimiser and "
        "activations of a step. Hours: of AdaptFormer's schedule on Something-Something V2 "
        "(168,913 clips x 90 epochs) at this rate, on one such device, if data come fast enough.",
        *(f"{row['name']}: {row['problem']}." for row in rows if row["problem"] is not None),
    ]
    return "\n".join(lines)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
