"""The whole configuration as frozen dataclasses: every key with its type, range and default.

The options of a method are the keyword-only arguments of its `inject` function, so they are in
`methods/`. What keys demand of each other is in `constraints.py`, and `command_line.py` reads a
configuration from YAML and options.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vidadapt.config.typed import Within

Count = Annotated[int, Within("[1, inf)")]
WholeNumber = Annotated[int, Within("[0, inf)")]
NotNegative = Annotated[float, Within("[0, inf)")]
Share = Annotated[float, Within("[0, 1)")]


class ConfigError(ValueError):
    """An impossible configuration; the message names the key."""


@dataclass(frozen=True)
class DataConfig:
    """The videos of a run, their frames, and the way to clips.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`; sets the number of classes, the flip rule and
            the sampling preset.
        lists: folder written by vidadapt prepare, or its URL in a store; gives the lists, label
            names and root of videos. It has a development split if one was asked for. Each list,
            label_names and quarantine may be a URL, too.
        root: folder that the paths in the lists are relative to, or its URL in a store, e.g.
            `s3://bucket/folder`.
        train_list: `path label` list to train on.
        dev_list: development split for choosing the best epoch; never the test list.
        test_list: list whose results are reported.
        label_names: file with one class name a line, in label order; required by `custom`.
        multi_label: a video has any number of labels, and lines of the lists are `path 3,17,42`
            (`path -`: none). The loss is binary cross-entropy over the classes, train.select is
            map, and thresholds are chosen on dev_list.
        sampling: sampling preset; default: the data set's.
        num_frames: T, frames of one clip; default: the preset's.
        stride: step from one frame of a dense clip to the next, in frames; default: the preset's.
        sampling_fps: take frames by time, as if each video had so many a second, whatever its own
            rate: frame k is the one shown k / sampling_fps seconds after the first, by the
            container's timestamps; stride counts these. Default: the frames of the file.
        crop_size: S, side of the square crop in pixels.
        train_crop: random crop in training, see `vidadapt.data.Augmentation`; `none`: the centre
            view of evaluation.
        resize: short side in pixels at evaluation, from whose middle the crops are cut; default:
            crop_size.
        interpolation: of resizing, in training and evaluation, always with antialiasing.
        fit: what evaluation does with the aspect ratio: `crop` keeps it and cuts squares out,
            `squash` resizes the whole frame to a square. Training does so with train_crop `none`.
        flip: mirror training clips at random; default: the data set's rule. Asking for it where
            the data set forbids it is an error.
        rand_augment: torchvision v2 RandAugment, 4 operations, magnitude 7 of 10.
        random_erasing: probability of erasing one box of the clip.
        repeated_augmentation: how many independently augmented copies of a video an epoch holds,
            adjacent in the batch; those in one batch share a decode.
        class_sampling: how many training videos of each class an epoch draws; it stays as long.
            `natural`: every video once. `balanced`: equally many of each class. `square_root`: in
            proportion to the square root of the class's number of videos. Videos of small classes
            come several times (other crops and frames each time; from a cache, its draws in turn),
            of large ones a random part. Only `natural` with train.class_weights and
            train.logit_adjustment.
        normalization: key of `vidadapt.data.transforms.NORMALIZATIONS`.
        reader: key of `vidadapt.video.readers.READERS`; `auto`: the faster of PyAV's two for a
            file's container and codec.
        num_workers: loader processes per training process; default: chosen from the cores, see
            `vidadapt.data.worker_count.loader_processes`.
        index_dir: folder for the video index; default: beside each list, or for a list in a store
            in the folder VIDADAPT_STORE_CACHE.
        count_timeout: seconds that decoding one file may take when its frames are counted, which
            is done once; null: no limit. A video that takes longer is unreadable in this run.
        truncated: what to do with a file whose header promises more frames than decode.
        changed: what to do with a file that has changed since it was counted: `warn` lists it in
            changed.jsonl in run_dir, `error` ends the run. If its size or time differs, and its
            frames, too, it is unreadable: skipped in training (see max_skipped), wrong in
            evaluation. If only its size or time differs, it is used. If only frames differ (damage
            on the disk, another version of FFmpeg), they are used as they are.
        max_unreadable: how many unreadable training videos may be left out (listed, counted);
            one more is an error. Evaluation never leaves a video out.
        quarantine: file of vidadapt check_videos that lists broken videos. They are never opened:
            training leaves them out (listed, not part of max_unreadable), evaluation counts them
            as wrong.
        clip_timeout: seconds that decoding one clip may take (of a video in evaluation: each of its
            clips; in training, of copies that share a decode, together); null: no limit. A clip
            that takes longer, or kills its loader process, is skipped in training and counts as
            wrong in evaluation. Not with num_workers 0: there nothing can be watched.
        max_skipped: how many training clips of an epoch, over all processes, may be skipped because
            they hang, kill their loader process or cannot be read; below 1 it is a share of the
            epoch. Each is listed in skipped.jsonl in run_dir; one more stops the run.
        check_files: check up front that every listed file exists.
        allow_outside_root: trust the lists: their paths may be absolute or hold `..`, and so lead
            out of root. Without it, such a path is an error.
    """

    dataset: str = "custom"
    lists: str | None = None
    root: str = "."
    train_list: str | None = None
    dev_list: str | None = None
    test_list: str | None = None
    label_names: str | None = None
    multi_label: bool = False
    sampling: str | None = None
    num_frames: int | None = None
    stride: int | None = None
    sampling_fps: float | None = None
    crop_size: int = 224
    train_crop: Literal["multi_scale", "random_resized", "random_resized_mae", "none"] = (
        "multi_scale"
    )
    resize: Annotated[int | None, Within("[1, inf)")] = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    fit: Literal["crop", "squash"] = "crop"
    flip: bool | None = None
    rand_augment: bool = False
    random_erasing: float = 0.0
    repeated_augmentation: int = 1
    class_sampling: Literal["natural", "square_root", "balanced"] = "natural"
    normalization: str = "imagenet"
    reader: str = "auto"
    num_workers: int | None = None
    index_dir: str | None = None
    count_timeout: float | None = 300.0
    truncated: Literal["warn", "error"] = "warn"
    changed: Literal["warn", "error"] = "warn"
    max_unreadable: int = 0
    quarantine: str | None = None
    clip_timeout: float | None = 300.0
    max_skipped: float = 0
    check_files: bool = True
    allow_outside_root: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The backbone and the file its weights come from.

    Attributes:
        backbone: key of `vidadapt.models.BACKBONES`, or `timm/NAME` for an image model of timm's.
        weights: checkpoint file (any recognised family, or `demo`), or from the Hugging Face hub
            `hub:OWNER/REPO`, `hub:OWNER/REPO/FILE`, or `hub`: timm's own. `random`: not
            pre-trained, always the same draw; training uses it only if asked to, and it is the
            default for measuring costs.
        weights_key: entry of that file to take, e.g. `model_ema`; default: the usual one, and the
            load report names the others.
        tubelet_size: frames of one token; unused if an image model runs frame by frame, and by
            backbones whose tokens are of one frame.
        patch_size: side of one token in pixels, of a video model; default: the backbone's.
        num_heads: attention heads of a tubelet ViT or V-JEPA; default: the backbone's. No tensor
            tells it: where config.json beside the weights says another number, give the one that
            the file was trained with.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.
        position_grid: token grid [t, h, w] of the pre-training, to interpolate its position table;
            default: the table is computed anew for this model's tokens, as VideoMAE does. Of ViViT:
            the grid of the file's table; default: that of the published files.
        from_image: how an image model becomes a video model: `inflate` (default) makes its patches
            tubelets and attends over space and time, `frames` runs it on every frame and averages.
        inflation: how an image model's patch embedding becomes that of a tubelet: `average`
            (default; its weights divided among the frames) or `centre` (all on the middle one).
        head: key of `vidadapt.models.heads.HEADS`; or `from_file`: the classifier in the weights
            file, of the kind that it has, with what it has learned.
        head_depth: blocks of `vjepa_attentive`, the last of which gathers; default: 4.
        head_heads: attention heads of `vjepa_attentive`; default: 16.
        head_weights: file of V-JEPA 2's probes with the head of `from_file`; the weights file then
            holds the encoder alone.
        head_weights_key: entry of that file to take, e.g. `classifiers.3`; default: the first.
        keep_head: begin with the head of the weights file; `head from_file` sets it.
        class_order: how classes of `from_file` are those of the list; default: their names are to
            agree. `by_name` puts them in the list's order, `by_number` does not compare names.
    """

    backbone: str = "vit_base"
    weights: str | None = None
    weights_key: str | None = None
    tubelet_size: int = 2
    patch_size: int | None = None
    num_heads: Annotated[int | None, Within("[1, inf)")] = None
    drop_path: float = 0.0
    position_grid: list[int] | None = None
    from_image: Literal["inflate", "frames"] | None = None
    inflation: Literal["average", "centre"] | None = None
    head: str = "batchnorm_linear"
    head_depth: int | None = None
    head_heads: Annotated[int | None, Within("[1, inf)")] = None
    head_weights: str | None = None
    head_weights_key: str | None = None
    keep_head: bool = False
    class_order: Literal["by_name", "by_number"] | None = None


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation recipe.

    Attributes:
        epochs: passes over the training list.
        batch_size: clips per process and micro-step.
        accumulation: micro-steps per optimiser step; global batch = batch_size x processes x this.
        optimizer: SGD (momentum 0.9, no Nesterov) or AdamW (betas 0.9, 0.999).
        base_lr: learning rate per 256 clips of global batch.
        weight_decay: on tensors of two and more dimensions only; not on position tables, class
            tokens and the like, see `no_weight_decay` of the models.
        warmup_epochs: linear warm-up from 0, per step; the first step after it has the peak. null
            with warmup_share.
        warmup_share: the same, as a share of all steps of the run; set warmup_epochs to null.
        min_lr: learning rate at the end of the cosine, for any global batch.
        layer_decay: learning-rate factor per layer below the head.
        label_smoothing: of the cross-entropy.
        class_weights: `balanced`: a clip's loss counts N / (K n) for its class with n of the N
            training videos of K classes, and so on average 1; mixed and smoothed labels, the mean
            of their classes' weights. `none`: every clip counts the same.
        logit_adjustment: tau; the loss is that of the logits plus tau x log(n / N) for a class with
            n of the N training videos, so that small classes are not scored low for being rare;
            1 is the usual value, 0 is off. Evaluation takes the logits as they are. See
            `vidadapt.training.class_terms.logit_shifts`.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of cutmix; 0 is off.
        ema: decay of an average of the trainable tensors that is evaluated and saved; 0 is off. At
            step t it is min(ema, (1 + t) / (10 + t)), so that the first weights are soon forgotten.
        precision: autocast type; `auto`: bf16 where the device computes in it, else fp32.
        clip_grad: largest gradient norm; 0 is off.
        sync_batchnorm: let the BatchNorm of model.head batchnorm_linear see the clips of all
            processes; default: each process its own, as in AdaptFormer's release.
        shard: divide weights, gradients and the optimiser's state among the processes (FSDP2), if
            training does not fit otherwise; of a frozen backbone only the weights. For full
            fine-tuning in half precision, set recompute `block` with it.
        compile: compile the model with `torch.compile`.
        recompute: what backward computes again instead of keeping it, with the same results:
            `mlp`, norm2 and the MLP; or `block`, whole blocks, which keeps the least.
        select: metric on data.dev_list by which the best epoch and the best run of a grid are
            chosen: `top1`; `mean_class_accuracy`, which counts each class the same; or `map`, for
            multi-label lists alone.
        early_stopping_patience: epochs without a better result on data.dev_list (of equal
            accuracies, the lower loss) after which the run ends; 0: it trains all its epochs.
        trackers: keys of `vidadapt.training.TRACKERS` that the curves go to beside TensorBoard,
            e.g. [wandb, mlflow].
        seed: of everything random.
        checkpoint_steps: optimiser steps after which a checkpoint is written within an epoch; 0:
            only by time. One is written after every epoch, and on SIGTERM and SIGUSR1, too.
        checkpoint_minutes: minutes after which one is written within an epoch; 0: only by steps.
        keep_checkpoints: number of newest checkpoints to keep: `last`, `last.1`, ...
        patience_minutes: minutes that a process waits for the others in a step before the run ends;
            set it longer than a process may wait for its data.
    """

    epochs: Count = 90
    batch_size: Count = 16
    accumulation: Count = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: NotNegative = 0.1
    weight_decay: NotNegative = 0.0
    warmup_epochs: Annotated[float | None, Within("[0, inf)")] = 10.0
    warmup_share: Annotated[float | None, Within("[0, 1)")] = None
    min_lr: NotNegative = 0.0
    layer_decay: Annotated[float, Within("(0, 1]")] = 1.0
    label_smoothing: Share = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    logit_adjustment: NotNegative = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    ema: Share = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    clip_grad: NotNegative = 0.0
    sync_batchnorm: bool = False
    shard: bool = False
    compile: bool = False
    recompute: Literal["none", "mlp", "block"] = "none"
    select: Literal["top1", "mean_class_accuracy", "map"] = "top1"
    early_stopping_patience: WholeNumber = 0
    trackers: list[str] = field(default_factory=list)
    seed: WholeNumber = 0
    checkpoint_steps: WholeNumber = 0
    checkpoint_minutes: NotNegative = 10.0
    keep_checkpoints: Count = 2
    patience_minutes: Annotated[float, Within("(0, inf)")] = 30.0


@dataclass(frozen=True)
class EvalConfig:
    """Multi-view evaluation.

    Attributes:
        num_clips: temporal clips per video; default: the sampling preset's.
        num_crops: spatial crops per clip; default: the sampling preset's.
        fusion: what is averaged over the views of a video.
        views_per_forward: micro-batch; the views of two videos never share one.
    """

    num_clips: int | None = None
    num_crops: int | None = None
    fusion: Literal["softmax", "logits"] = "softmax"
    views_per_forward: Count = 16


@dataclass(frozen=True)
class CacheConfig:
    """Features of the frozen part of a model, computed once and kept in files.

    For methods that train only upper layers, a side network or the head. A run fills the cache
    before its first epoch, or uses one that another run filled with the same backbone, lists,
    clips and draws; from then on it opens no video.

    Attributes:
        dir: folder for it, on a disk that all machines share; none: no cache.
        draws: augmented clips kept of each training video. With epochs x repeated_augmentation of
            them a run equals one without a cache; with fewer, epochs take them in turn.
        dtype: type of the stored features: `fp32`, or `bf16` with half the size and rounded.
        max_gb: largest size of the files in GB (1e9 bytes).
    """

    dir: str | None = None
    draws: Count = 1
    dtype: Literal["fp32", "bf16"] = "fp32"
    max_gb: NotNegative = 50.0


@dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
        run_dir: folder that the run writes.
        method: `name` and the method's options.
        start: adapter that the method's own weights begin with; it is written as `method.start`.
        plugins: modules that were imported first, see `plugins`.
    """

    run_dir: str
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "adaptformer"})
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    plugins: list[str] = field(default_factory=list)
    start: str | None = None


def as_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested plain dicts; `plugins` and `start` only if given."""
    sections = {key: dict(vars(getattr(config, key))) for key in SECTIONS}
    plugins = {"plugins": list(config.plugins)} if config.plugins else {}
    start = {"start": config.start} if config.start is not None else {}
    return {
        "run_dir": config.run_dir,
        **plugins,
        "method": {**config.method, **start},
        **sections,
    }


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
    "cache": CacheConfig,
}
