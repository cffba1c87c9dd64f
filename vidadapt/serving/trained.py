"""Find and load a trained run or adapter, and score it on a list.

vidadapt evaluate and the reports on trained models share this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidadapt import config, data, methods, runs
from vidadapt.config import Config, ConfigError, DataConfig, EvaluateOptions, command_line
from vidadapt.data import Changes, DataPlan, VideoList
from vidadapt.distributed import World, from_main, gather_objects, together
from vidadapt.evaluation import Parts, Scores, Scoring, score_views
from vidadapt.files import absolute, beside, checksum, is_there, is_url, warn_of_retries
from vidadapt.lists import (
    LABELS_FILE,
    Sample,
    Samples,
    check_label_names,
    read_label_names,
    read_list,
    with_lists,
)
from vidadapt.models import WITHOUT_FILE, VideoModel, cast_frozen, resolved_precision
from vidadapt.runs import (
    SavedAdapter,
    adapter_json,
    adapters,
    checkpoints,
    from_hub,
    from_store,
)
from vidadapt.serving.published import METHOD, Published, find_published, load_published


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the list to score it on; not loaded yet.

    Attributes:
        config: of the run or adapter, with the command line's changes and the lists' paths.
        plan: clips, classes and views.
        checkpoint: folder of adapter.safetensors and adapter.json.
        split: which list, `test` or `dev`.
        listed: its path.
        published: a classifier in the place of a checkpoint, which is its weights file then.
    """

    config: Config
    plan: DataPlan
    checkpoint: Path
    split: str
    listed: str
    published: Published | None = None

    @property
    def name(self) -> str:
        """For a folder of results."""
        return self.checkpoint.name if self.published is None else self.published.name


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's model on its device, frozen, and the list with its files checked.

    Attributes:
        trainable: number of parameters that were trained.
        report: what was loaded of a published classifier, in words; empty: it is another model.
    """

    trained: Trained
    model: VideoModel
    trainable: int
    precision: str
    videos: VideoList
    report: str = ""


def asked(argv: list[str]) -> tuple[Config | None, EvaluateOptions, SavedAdapter | None]:
    """Parse a command line of vidadapt evaluate; also return the adapter that it names, if any.

    The configuration is None for `--from_scores`. That of a run has `data.label_names` only if
    the command line gives them: the run knows its own, see `find`.

    Raises:
        ConfigError, RunError: unknown or malformed keys, no such run or adapter, or one whose
            weights must be named.
        SystemExit: after --help.
    """
    argv = _with_local_run(config.spelt(argv))
    config.import_plugins(argv)  # of the adapter, too, which is read before the command is parsed
    alone = command_line.adapter_option(argv)
    adapter = None if alone is None else adapters.read_adapter(adapters.find_adapter(alone))
    cfg, options = command_line.parse_evaluate(
        argv, methods.METHODS, None if adapter is None else adapter.config
    )
    if cfg is not None:
        config.check_evaluation(cfg)
        if adapter is not None and cfg.model.weights is None and cfg.method["name"] != "full":
            adapters.with_weights(adapter, None)  # raises an error that says which
    if cfg is not None and options.run_dir is not None:
        cfg = _from_here(cfg, command_line.typed(argv))
    return cfg, options, adapter


def _with_local_run(argv: list[str]) -> list[str]:
    """Replace the URL of a run by the folder that its files are fetched into."""
    run = config.value_of(argv, "--run_dir")
    if run is None or not is_url(run):
        return argv
    local = str(from_store.fetched(run, config.value_of(argv, "--checkpoint")))
    words = [f"--run_dir={local}" if word == f"--run_dir={run}" else word for word in argv]
    return [
        local if before == "--run_dir" else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def _from_here(cfg: Config, typed: set[str]) -> Config:
    """A run's configuration with newly given lists, and with paths that are valid here.

    `.`, and relative paths that do not exist here, are taken from the run's working directory.
    Class names are left to the run; with `data.lists`, its lists and root are used.

    Args:
        typed: keys that the command line gives; these stay as they are.
    """
    defaults = vars(DataConfig())
    stood_for = ("root", *(f"{split}_list" for split in ("train", "dev", "test")))
    renewed = ["label_names", *(stood_for if "data.lists" in typed else ())]
    of_data: dict[str, Any] = {k: defaults[k] for k in renewed if f"data.{k}" not in typed}
    cfg = replace(cfg, data=replace(cfg.data, **of_data))
    environment = Path(cfg.run_dir) / runs.ENVIRONMENT
    try:
        trained_in = json.loads(environment.read_text(encoding="utf-8"))["working_directory"]
        home = Path(trained_in)
    except (OSError, ValueError, KeyError, TypeError):  # of an older version
        return cfg

    def from_here(key: str, path: str | None) -> str | None:
        if key in typed or path is None or not (home / path).exists():
            return path
        return str(home / path) if path == "." or not Path(path).exists() else path

    if cfg.model.weights not in WITHOUT_FILE:
        weights = from_here("model.weights", cfg.model.weights)
        cfg = replace(cfg, model=replace(cfg.model, weights=weights))
    if "data.lists" in typed:
        return cfg
    of_data = {
        key: from_here(f"data.{key}", getattr(cfg.data, key))
        for key in (*stood_for, "quarantine", "index_dir")
    }
    return replace(cfg, data=replace(cfg.data, **of_data))


def find(cfg: Config, options: EvaluateOptions, adapter: SavedAdapter | None) -> Trained:
    """Find the checkpoint and the list for what `asked` gave; quick.

    Raises:
        ValueError: no such checkpoint, the list is not set, options that do not go together.
    """
    named = cfg.data.label_names is not None
    published = None
    is_run = options.run_dir is not None
    cfg = replace(cfg, data=with_lists(cfg.data, same_dataset=is_run))
    if not is_run and adapter is None:
        published = find_published(cfg, _names_of_list(cfg.data, options.split))
        cfg, plan, checkpoint = published.config, published.plan, published.head.head_path
    elif adapter is None:
        checkpoint = adapters.checkpoint_folder(Path(cfg.run_dir), options.checkpoint)
        names = None if named else checkpoints.load_checkpoint(checkpoint)[1].get("label_names")
        plan = data.resolve(cfg.data, cfg.eval, names)
    else:
        plan = adapters.with_views(adapter.plan, cfg.eval.num_clips, cfg.eval.num_crops)
        checkpoint = adapter.folder
    listed = cfg.data.test_list if options.split == "test" else cfg.data.dev_list
    if listed is None:
        raise ConfigError(f"data.{options.split}_list: is not set; give the list to evaluate")
    for key, path, mend in (
        (f"data.{options.split}_list", listed, "--data.lists FOLDER, or --data.{split}_list FILE"),
        ("data.root", cfg.data.root, "--data.root FOLDER"),
    ):
        if not is_url(path) and not Path(path).exists():
            raise ConfigError(
                f"{key}: {path} is not there, seen from {Path.cwd()}; where it has moved, give it "
                "with " + mend.format(split=options.split)
            )
    return Trained(cfg, plan, checkpoint, options.split, listed, published)


def _names_of_list(of: DataConfig, split: str) -> list[str] | None:
    """Class names of the list to score, if it has some: as given, else of the file beside it."""
    listed = of.test_list if split == "test" else of.dev_list
    names = None if listed is None else beside(listed, LABELS_FILE)
    if of.label_names is not None:
        return list(read_label_names(of.label_names))
    return None if names is None or not is_there(names) else list(read_label_names(names))


def samples_of(trained: Trained) -> Samples:
    """Read the list's videos; its labels must be those that the model knows.

    Raises:
        ListError: a malformed list, or labels that mean other classes.
    """
    of = trained.config.data
    check_label_names(trained.listed, trained.plan.label_names, of.label_names)
    return read_list(
        trained.listed,
        of.root,
        trained.plan.num_classes,
        of.allow_outside_root,
        multi_label=trained.plan.multi_label,
    )


def videos_of(trained: Trained, samples: Sequence[Sample] | None = None) -> VideoList:
    """Check the files of the list.

    Args:
        samples: a part of those of `samples_of`; default: all.

    Raises:
        ValueError, OSError, ReadError: what cannot be used, naming file, line or key.
    """
    listed = samples_of(trained) if samples is None else samples
    return data.load_list(trained.config.data, trained.plan, trained.listed, listed, training=False)


def load(trained: Trained, world: World, samples: Sequence[Sample] | None = None) -> Loaded:
    """Load the model and check the files of the list, on all processes.

    Args:
        samples: a part of those of `samples_of`; default: all.

    Raises:
        ValueError, OSError, ReadError: what cannot be used, naming file, line or key.
    """
    cfg, plan, report = trained.config, trained.plan, ""
    with together(world):
        if trained.published is not None:
            model, report = load_published(trained.published, world.device)
        else:
            model = adapters.load_adapted_model(cfg, plan, trained.checkpoint)
            model.to(world.device)
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        model.requires_grad_(False)
        precision = resolved_precision(world.device, cfg.train.precision)
        cast_frozen(model, world.device, precision)
    videos = from_main(world, lambda: videos_of(trained, samples))
    return Loaded(trained, model, trainable, precision, videos, report)


def score(
    loaded: Loaded,
    world: World,
    *,
    orders: torch.Tensor | None = None,
    parts: Parts | None = None,
    changes: Changes | None = None,
    label: str = "evaluate",
) -> Scores:
    """Score every view of the list once, in `orders` of the frames, see `views.score_views`."""
    cfg, plan, videos = loaded.trained.config, loaded.trained.plan, loaded.videos
    loader = data.eval_loader(
        cfg.data,
        plan,
        videos,
        chosen=None if parts is None else parts.left,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
        changes=changes,
    )
    scores = score_views(
        loaded.model,
        loader,
        paths=videos.samples.paths,
        labels=videos.samples.labels,
        num_classes=plan.num_classes,
        num_clips=plan.num_clips,
        num_crops=plan.num_crops,
        normalization=plan.normalization,
        views_per_forward=cfg.eval.views_per_forward,
        precision=loaded.precision,
        world=world,
        orders=orders,
        parts=parts,
        label=label,
    )
    again = [line for part in gather_objects(world, loader.again) for line in part]
    if parts is not None:
        parts.warnings += warn_of_retries(again)
    return scores


def job(loaded: Loaded, world: World) -> Scoring:
    """Facts that the scores depend on, to recognise an evaluation that was stopped."""
    plan, videos = loaded.trained.plan, loaded.videos
    device = (
        torch.cuda.get_device_name(world.device)
        if world.device.type == "cuda"
        else f"{world.device.type} with {torch.get_num_threads()} threads"
    )
    facts = about(loaded)
    shared = ("manifest", "num_frames", "crop_size", "normalization", "precision")
    return Scoring(
        settings={
            **{key: facts[key] for key in shared},
            **plan.framing.settings(),
            "model": _digest(loaded.model),
            "frames": videos.samples.digest(),
            "sampling": plan.sampling.policy,
            "stride": plan.sampling.stride,
            "segments": plan.sampling.segments,
            **({} if plan.sampling.fps is None else {"sampling_fps": plan.sampling.fps}),
            "eval.views_per_forward": loaded.trained.config.eval.views_per_forward,
        },
        machine=f"{device} (torch {torch.__version__})",
        paths=videos.samples.paths,
        labels=videos.samples.labels,
        num_classes=plan.num_classes,
        num_clips=plan.num_clips,
        num_crops=plan.num_crops,
    )


def _digest(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of a model's tensors as used in computing."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def about(loaded: Loaded) -> dict[str, Any]:
    """Origin of scores, as JSON: run, method, checkpoint, list and its hash, clips, precision."""
    trained, plan = loaded.trained, loaded.trained.plan
    if trained.published is not None:
        origin: dict[str, Any] = {
            "run_dir": None,
            "method": METHOD,
            "checkpoint": trained.name,
            **trained.published.about,
        }
    else:
        origin = {
            "run_dir": from_store.origin(trained.config.run_dir) or trained.config.run_dir,
            "method": trained.config.method["name"],
            "checkpoint": trained.checkpoint.name,
            "adapter_sha256": checksum(trained.checkpoint / checkpoints.TENSORS),
        }
    return {
        **origin,
        "list": str(trained.listed),
        "root": absolute(trained.config.data.root),
        "manifest": loaded.videos.manifest,
        "label_names": plan.label_names,
        **_thresholds(trained),
        "num_frames": plan.sampling.num_frames,
        "crop_size": plan.crop_size,
        "normalization": plan.normalization,
        **plan.framing.settings(),
        "precision": loaded.precision,
    }


def _thresholds(trained: Trained) -> dict[str, list[float]]:
    """Probabilities from which on classes are predicted; empty: not known, or one label a video."""
    if trained.published is not None:
        return {}
    found = adapter_json.thresholds_of(checkpoints.load_checkpoint(trained.checkpoint)[1])
    return {} if found is None else {"thresholds": found}


def output_folder(found: Trained, kind: str, out: str | None) -> Path:
    """Make the folder for results, and try it before any work is done.

    Args:
        kind: of results, "eval" or "temporal"; begins the folder's name.
        out: `--out`; None: a folder named after split, checkpoint and views, inside the run's; of
            an adapter of the hub inside OWNER--NAME in the working directory, of one in a store
            inside the last part of its URL.

    Raises:
        RunError: the folder cannot be written.
    """
    views = f"{found.plan.num_clips}x{found.plan.num_crops}"
    name = f"{kind}_{found.split}_{found.name}_{views}"
    home = from_store.origin(found.config.run_dir) or found.config.run_dir
    if from_hub.is_reference(home):
        home = from_hub.parts_of(home)[0].replace("/", "--")
    elif is_url(home):
        home = home.rpartition("/")[2]
    folder = Path(out) if out else Path(home) / name
    runs.check_writable("--out", folder)
    return folder
