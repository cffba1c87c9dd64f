"""Made-up lines of results.jsonl, whole as the harness writes them."""

from __future__ import annotations

from typing import Any

TRAINABLE = {"linear": 135_342, "vpt": 209_070, "adaptformer": 1_324_974, "full": 86_361_006}
RUN_FIGURES = (
    *("top1", "top5", "mean_class_accuracy", "num_videos", "unreadable", "views", "dev_top1"),
    *("best_epoch", "evaluation_seconds_per_video", "curve", "manifests", "environment", "config"),
    *("run_epoch_seconds", "run_epoch_spread_percent", "cross_validation", "tasks"),
)


def cell(variant: str, frames: int, seed: int, **changed: Any) -> dict[str, Any]:
    """A trained cell whose figures are simple functions of its place."""
    order = list(TRAINABLE).index(variant) if variant in TRAINABLE else 2
    top1 = 20.0 + 10 * order + 3 * frames**0.5 + (seed * 7 % 5) / 3
    return {
        "cell": f"{variant}_{frames}f_s{seed}",
        "variant": variant,
        "method": variant if variant in TRAINABLE else "adaptformer",
        "options": {"bottleneck": 64, "layers": [7, 12]} if order == 2 else {},
        "frames": frames,
        "seed": seed,
        "processes": 1,
        "epochs": 3,
        "base_lr": 0.1 + 0.2,
        "top1": top1,
        "top5": top1 + 20,
        "mean_class_accuracy": top1 - 1,
        "cross_validation": None,
        "tasks": None,
        "num_videos": 120,
        "unreadable": 0,
        "views": "2 clips x 3 crops",
        "dev_top1": top1 + 1,
        "best_epoch": 2,
        "trainable": TRAINABLE.get(variant, 1_324_974),
        "total": 86_361_006,
        "share_percent": 100 * TRAINABLE.get(variant, 1_324_974) / 86_361_006,
        "adapter_bytes": 4 * TRAINABLE.get(variant, 1_324_974),
        "forward_flops_per_clip": 9_000_000_000 * frames,
        "training_flops_per_clip": 25_000_000_000 * frames,
        "backbone": "vit_base",
        "crop_size": 224,
        "num_classes": 12,
        "precision": "fp32",
        "device": "cpu",
        "batch_size": 4,
        "threads": 2,
        "step_seconds": 0.1234 * frames,
        "step_spread_percent": 4.0,
        "peak_memory_bytes": 500_000_000 * frames,
        "peak_process_bytes": 900_000_000 * frames,
        "matmul_tflops": 0.1,
        "matmul_share": 0.5,
        "data_seconds_per_clip": 0.01,
        "data_spread_percent": 5.0,
        "data_share": 0.25,
        "clips_per_second": 20.0 / frames,
        "epoch_seconds": 30.0 * frames,
        "run_epoch_seconds": 33.0 * frames + seed,
        "run_epoch_spread_percent": 2.0,
        "evaluation_seconds_per_video": 0.25,
        "noisy": [],
        "curve": [
            {"epoch": e, "loss": 2.5 / e, "dev_top1": None if e == 1 else top1 * e / 3}
            for e in (1, 2, 3)
        ],
        "grid": None,
        "manifests": {"test": "0" * 64},
        "environment": {"python": "3.11.7", "packages": {"torch": "2.11"}},
        "config": {"data": {"num_frames": frames}},
        "problem": None,
        **changed,
    }


def matrix(
    variants: tuple[str, ...] = ("linear", "vpt", "adaptformer"),
    frames: tuple[int, ...] = (2, 4, 8),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> list[dict[str, Any]]:
    """Seeds outermost, as the harness finishes them."""
    return [cell(v, t, s) for s in seeds for t in frames for v in variants]


def failed(line: dict[str, Any], problem: str) -> dict[str, Any]:
    """The line of a cell without accuracies: costs, and what is projected from them."""
    return {
        **line,
        **dict.fromkeys(RUN_FIGURES),
        "problem": problem,
    }


def cost(variant: str, frames: int) -> dict[str, Any]:
    """A line of --cost_only."""
    line = failed(cell(variant, frames, 0), "")
    return {**line, "cell": f"{variant}_{frames}f", "seed": None, "problem": None}
