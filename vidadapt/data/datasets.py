"""Properties of the known data sets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """Properties of a data set.

    Attributes:
        num_classes: K; None: as many as the label file has names.
        sampling: key of `SAMPLINGS`.
        flip: whether training clips are mirrored at random by default.
        may_flip: False where mirroring turns one class into another; asking for it is an error.
        config: configuration to begin with; None: there is none of its own.
    """

    num_classes: int | None
    sampling: str
    flip: bool
    may_flip: bool = True
    config: str | None = None


DATASETS = {
    # "Pushing something from left to right" has a class of its own from right to left.
    "ssv2": Dataset(174, "adaptformer", flip=False, may_flip=False, config="ssv2/adaptformer"),
    "hmdb51": Dataset(51, "adaptformer", flip=True, config="hmdb51/adaptformer"),
    "ucf101": Dataset(101, "videomae_dense", flip=True),
    "kinetics400": Dataset(400, "videomae_dense", flip=True),
    # A user's classes may differ by left and right: mirroring must be asked for.
    "custom": Dataset(None, "uniform8", flip=False),
    # Sets of images: each is a video of one frame.
    "cifar100": Dataset(100, "image", flip=True, config="cifar100/adaptformer"),
    # A mirrored digit is none, but AdaptFormer's recipe mirrors them (configs/svhn).
    "svhn": Dataset(10, "image", flip=False, config="svhn/adaptformer"),
    "food101": Dataset(101, "image", flip=True, config="food101/adaptformer"),
    "flowers102": Dataset(102, "image", flip=True, config="images"),
    # A set of tasks: mirroring changes the class of some (positions, angles); the recipe has none.
    "vtab": Dataset(None, "image", flip=False, may_flip=False, config="vtab/adaptformer"),
    "fgvc": Dataset(None, "image", flip=True, config="fgvc/arc"),
    "nuswide": Dataset(81, "image", flip=True, config="nuswide/adaptformer"),
    "custom_images": Dataset(None, "image", flip=False, config="images"),
}
