"""Begin a run's folder or resume the run in it, on as many processes as there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt.config import Config, ConfigError, TrainConfig, as_dict, with_new_keys, yaml_files
from vidadapt.console import differing
from vidadapt.data import shared_out
from vidadapt.distributed import World
from vidadapt.files import refuse_held, write_json, write_text
from vidadapt.models import resolved_precision
from vidadapt.runs import checkpoints, folder
from vidadapt.runs.differences import all_settings

# What may change when a run is resumed. The global batch is checked apart: batch_size, processes
# and accumulation may share it out differently, which is said, since BatchNorm's statistics and
# the random numbers of dropout and mixing are each process's own (with train.sync_batchnorm, the
# statistics are those of batch_size x processes clips). A cache may lie elsewhere, but
# `check_resumable` sees to it that a run goes on with one, or without one, as it began.
FREE_ON_RESUME = {
    "run_dir",
    "cache.dir",
    "cache.max_gb",
    "data.root",
    "data.num_workers",
    "data.index_dir",
    "data.check_files",
    "data.clip_timeout",
    "data.count_timeout",
    "data.changed",
    "data.max_skipped",
    "data.allow_outside_root",
    "eval.views_per_forward",
    "train.batch_size",
    "train.accumulation",
    "train.recompute",
    "train.shard",
    "train.early_stopping_patience",
    "train.trackers",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
    "train.keep_checkpoints",
    "train.patience_minutes",
}


def check_startable(run_dir: Path, resume: bool, *, grid: bool = False) -> None:
    """Refuse a folder that a run, or a grid of runs, cannot use; see `folder.check_free`.

    Raises:
        RunError: it cannot be written, or holds a run and `resume` is not asked for; or it holds a
            grid in the place of a run, or the other way round.
        Held: another process is at work in it.
    """
    try:
        folder.check_free(run_dir, resume)
    except folder.RunError:
        refuse_held(run_dir, "run_dir")
        raise
    if grid and (run_dir / "config.yaml").exists():
        raise folder.RunError(f"run_dir: {run_dir} holds a run; give a grid a folder of its own")
    if not grid and (run_dir / folder.GRID).exists():
        raise folder.RunError(
            f"run_dir: {run_dir} holds a grid; continue it with its --grid options, or give the "
            "folder of one of its runs"
        )


def previous_run(run_dir: Path, cfg: Config, resume: bool) -> dict[str, Any] | None:
    """Return the state to resume from, checked against the configuration; None: from the start.

    Raises:
        RunError: see `folder.check_free`; or no checkpoint of the run is sound.
        ConfigError: the run has another configuration; names the keys. Or a new run is to begin
            with random weights that nobody asked for.
    """
    folder.check_free(run_dir, resume)
    last = checkpoints.find_checkpoint(run_dir / "last", to_resume=True) if resume else None
    if last is None:
        _require_weights(cfg)
        return None
    now = kept_settings(cfg)
    of_run = without_free(all_settings(yaml_files.read_yaml(run_dir / "config.yaml", "run_dir")))
    if changed := differing(of_run, now):
        raise ConfigError(
            f"--resume: the configuration differs from {run_dir / 'config.yaml'}: "
            + "; ".join(changed)
            + ". Use the same, or another run_dir"
        )
    saved = checkpoints.load_trainer(last)
    known = saved["facts"].get("settings")
    if known is not None:
        defaults = without_free(all_settings({"method": {"name": known["method.name"]}}))
        if changed := differing({**defaults, **with_new_keys(known)}, now):
            raise ConfigError(
                f"--resume: {last} is a checkpoint of another run: {'; '.join(changed)}. Put that "
                "of this run in its place, or use another run_dir"
            )
    return saved


def _require_weights(cfg: Config) -> None:
    if cfg.model.weights is None:
        raise ConfigError(
            "model.weights: is not set, and a backbone of random weights adapts to nothing; give "
            "a file of pre-trained weights, or `--model.weights random` where it is meant"
        )


def start_folder(
    run_dir: Path,
    cfg: Config,
    asked: TrainConfig,
    resume: bool,
    saved: dict[str, Any] | None,
    world: World,
) -> None:
    """Create or continue a run's folder: its configuration, environment and logs.

    Args:
        asked: the recipe as it was asked for, before it was shared among these processes.
        saved: what `previous_run` returned.
    """
    folder.create(run_dir, resume)
    write_text(run_dir / "config.yaml", yaml_files.dump(cfg))
    precision = resolved_precision(world.device, cfg.train.precision)
    here = {**folder.environment(world.size, str(world.device)), "precision": precision}
    write_json(run_dir / folder.ENVIRONMENT, here)
    done = 0 if saved is None else saved["progress"]["epoch"]
    for log in ("log.jsonl", "steps.jsonl"):
        folder.drop_lines_from(run_dir / log, "epoch", done + 1)
    if saved is not None:
        checkpoints.set_aside_damaged(run_dir / "last")
        begun = f" and {saved['progress']['consumed']} clips" * (saved["progress"]["consumed"] > 0)
        print(f"resuming {run_dir} after epoch {done}{begun}")
        if "settings" not in saved["facts"]:
            print("the checkpoint, of an older version, does not say of which run it is")
        say_processes(saved["facts"], asked, cfg.train, world.size)
    elif resume:
        print(f"{run_dir} holds no checkpoint to resume: starting from the beginning")


def kept_settings(cfg: Config) -> dict[str, Any]:
    """Return the settings that no resume may change, which a checkpoint keeps."""
    return without_free(all_settings(as_dict(cfg)))


def without_free(found: dict[str, Any]) -> dict[str, Any]:
    """Leave `FREE_ON_RESUME` out of some of `all_settings`."""
    return {key: value for key, value in found.items() if key not in FREE_ON_RESUME}


def shared_among(processes: int, train: TrainConfig, before: dict[str, Any]) -> TrainConfig:
    """Return the recipe that keeps a run's global batch on this number of processes.

    Another `accumulation` keeps it, or a smaller `batch_size`; where the processes cannot share it
    equally, the nearest one is taken. So the command that a run began with works on any number of
    processes, as often as it is resumed.
    """
    wanted = before["global_batch"]
    if train.batch_size * train.accumulation * processes == wanted:
        return train
    sizes = shared_out(wanted, train.batch_size, processes)
    if sizes is None:
        steps = max(1, round(wanted / (train.batch_size * processes)))
        sizes = train.batch_size, steps
    return replace(train, batch_size=sizes[0], accumulation=sizes[1])


def check_resumable(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that what the configuration does not show is as it was when the run began.

    What the checkpoint of an older version does not hold is not compared.

    Raises:
        ConfigError: names what differs, and how to mend it.
    """
    mends = {
        "global_batch": "choose batch_size x processes x accumulation with the same product",
        "backbone": "give the weights file that the run began with",
        "precision": "this machine computes in another one: set train.precision from the start",
        "manifests": "a list, or what can be read of it, has changed: restore it",
        "cached": "set cache.dir, or leave it out, as the run began",
    }
    if before["processes"] != now["processes"]:
        del mends["global_batch"]  # `shared_among` has said what becomes of it
    for key, mend in mends.items():
        if key in before and before[key] != now[key]:
            was, here = before[key], now[key]
            if key == "manifests":
                other = [split for split in {**was, **here} if was.get(split) != here.get(split)]
                was, here = ({split: one.get(split) for split in other} for one in (was, here))
            raise ConfigError(
                f"--resume: {key} was {was}, here it is {here}; {mend}, or use another run_dir"
            )


def say_processes(
    before: dict[str, Any], asked: TrainConfig, train: TrainConfig, processes: int
) -> None:
    """Say what is not as it was on another number of processes, or not as asked for."""
    if before["processes"] == processes and train == asked:
        return
    now = train.batch_size * train.accumulation * processes
    after = "" if before["processes"] == processes else f" after {before['processes']}"
    print(
        f"{processes} processes{after}: batch_size {train.batch_size}, "
        f"accumulation {train.accumulation}; "
        + (
            f"the global batch stays {now}"
            if now == before["global_batch"]
            else f"warning: the global batch changes from {before['global_batch']} to {now}, and "
            "the learning rate and the number of steps with it"
        )
        + (". Sums round otherwise than on as many processes as before" if after else "")
    )
