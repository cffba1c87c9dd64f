"""Evaluate: load a run's checkpoint, score every view once, fuse, report."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt import adapters, command_line, config, data, distributed, methods, runs
from vidadapt.command_line import EvaluateOptions
from vidadapt.config import Config, ConfigError
from vidadapt.data.lists import check_label_names, read_list
from vidadapt.data.prepared import with_lists
from vidadapt.data.quarantine import read_quarantine
from vidadapt.data.readers import ReadError
from vidadapt.distributed import World, main_first, together
from vidadapt.evaluate import (
    load_scores,
    metrics,
    save_scores,
    score_views,
)
from vidadapt.precision import cast_frozen, resolved_precision
from vidadapt.progress import duration


def main(world: World) -> None:
    with together(world):
        argv = sys.argv[1:]
        alone = command_line.adapter_option(argv)
        adapter = None if alone is None else adapters.read_adapter(adapters.find_adapter(alone))
        cfg, options = command_line.parse_evaluate(
            argv, methods.METHODS, None if adapter is None else adapter.config
        )
        if cfg is not None:
            config.check_evaluation(cfg)
    if cfg is None:
        if world.is_main:
            rescore(options)
        return
    began = time.monotonic()
    with together(world):
        cfg = replace(cfg, data=with_lists(cfg.data, same_dataset=adapter is None))
        if adapter is None:
            plan = data.resolve(cfg.data, cfg.eval)
            folder = adapters.checkpoint_folder(Path(cfg.run_dir), options.checkpoint)
        else:
            plan = adapters.with_views(adapter.plan, cfg.eval.num_clips, cfg.eval.num_crops)
            folder = adapter.folder
        listed = cfg.data.test_list if options.split == "test" else cfg.data.dev_list
        if listed is None:
            raise ConfigError(f"data.{options.split}_list: is not set; give the list to evaluate")
        out = output_folder(cfg, options, plan.num_clips, plan.num_crops, folder)
        model = adapters.load_adapted_model(cfg, plan, folder).to(world.device)
        model.requires_grad_(False)
        check_label_names(listed, plan.label_names, cfg.data.label_names)
        precision = resolved_precision(world.device, cfg.train.precision)
        cast_frozen(model, world.device, precision)
        samples = read_list(
            listed,
            cfg.data.root,
            plan.num_classes,
            cfg.data.check_files,
            read_quarantine(cfg.data.quarantine),
        )
    videos = main_first(
        world,
        lambda: data.load_list(
            cfg.data, plan, listed, samples, training=False, progress=world.is_main
        ),
    )
    with together(world):
        check_same_list(out, videos.manifest)
    scores = score_views(
        model,
        data.eval_loader(
            cfg.data,
            plan,
            videos,
            rank=world.rank,
            world_size=world.size,
            pin_memory=world.device.type == "cuda",
        ),
        paths=[sample.path for sample in videos.samples],
        labels=[sample.label for sample in videos.samples],
        num_classes=plan.num_classes,
        num_clips=plan.num_clips,
        num_crops=plan.num_crops,
        normalization=plan.normalization,
        views_per_forward=cfg.eval.views_per_forward,
        precision=precision,
        world=world,
    )
    if world.is_main:
        about = {
            "run_dir": cfg.run_dir,
            "checkpoint": folder.name,
            "list": str(listed),
            "manifest": videos.manifest,
            "label_names": plan.label_names,
            "num_frames": plan.sampling.num_frames,
            "crop_size": plan.crop_size,
            "normalization": plan.normalization,
            "precision": precision,
        }
        result = {**metrics(scores, cfg.eval.fusion), **about, "warnings": list(videos.warnings)}
        result["seconds"] = time.monotonic() - began
        save_scores(out / "scores.npz", scores, about)
        runs.write_json(out / "metrics.json", result)
        say(out, result)


def output_folder(
    cfg: Config, options: EvaluateOptions, num_clips: int, num_crops: int, checkpoint: Path
) -> Path:
    """The folder for the results, made and tried before any work is done."""
    name = f"eval_{options.split}_{checkpoint.name}_{num_clips}x{num_crops}"
    out = Path(options.out) if options.out else Path(cfg.run_dir) / name
    runs.check_writable("--out", out)
    return out


def check_same_list(out: Path, manifest: str) -> None:
    """Results of another list are not overwritten."""
    earlier = out / "metrics.json"
    if earlier.exists() and json.loads(earlier.read_text())["manifest"] != manifest:
        raise ConfigError(f"--out: {earlier} holds the results of another list; choose another")


def rescore(options: EvaluateOptions) -> None:
    """Metrics again from a scores file, with the fusion asked for."""
    assert options.from_scores is not None
    source = Path(options.from_scores)
    scores, about = load_scores(source)
    result = {**metrics(scores, options.fusion), **about, "from_scores": str(source)}
    if options.out is not None:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        runs.write_json(Path(options.out) / "metrics.json", result)
    say(Path(options.out) if options.out else None, result)


def say(out: Path | None, result: dict[str, Any]) -> None:
    print(
        f"top-1 {result['top1']:.2f}, top-5 {result['top5']:.2f}, mean class "
        f"{result['mean_class_accuracy']:.2f} on {result['num_videos']} videos of "
        f"{result['list']} ({result['views']}, {result['fusion']} averaged)"
        + (f" in {duration(result['seconds'])}" if "seconds" in result else "")
    )
    unreadable = result["unreadable"]
    if unreadable:
        print(f"unreadable, counted as wrong ({len(unreadable)}):")
        for entry in unreadable[:10]:
            print(f"  {entry['path']}: {entry['error']}")
    if out is not None:
        print(f"results: {out}/metrics.json")


if __name__ == "__main__":
    distributed.launch(main, (ValueError, OSError, ReadError))
