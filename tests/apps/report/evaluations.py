"""Results of evaluations that never took place, for reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidadapt.evaluation import Scores, measure, save_scores, write_tables
from vidadapt.files import write_json


def write_evaluation(
    folder: Path, names: Sequence[str], *, num_videos: int, seed: int = 0, paths: str = "{}.mp4"
) -> Scores:
    """Write the results of a fair model on a list without files; two videos are unreadable.

    Args:
        names: of the classes, whose sizes differ; each has some videos and often looks like the
            next one.
        paths: form of the list paths.
    """
    rng = np.random.default_rng(seed)
    num_classes = len(names)
    shares = rng.uniform(0.3, 1.7, num_classes)
    labels = np.concatenate(
        [
            np.arange(num_classes),
            rng.choice(num_classes, num_videos - num_classes, p=shares / shares.sum()),
        ]
    )
    logits = rng.normal(size=(num_videos, 2, num_classes)).astype(np.float32)
    strength = rng.uniform(1.5, 5.0, num_classes)[labels, None]
    logits[np.arange(num_videos)[:, None], [0, 1], labels[:, None]] += strength
    logits[np.arange(num_videos)[:, None], [0, 1], (labels[:, None] + 1) % num_classes] += 2.0
    logits[:2] = np.nan
    listed = [paths.format(number) for number in range(num_videos)]
    errors = dict.fromkeys(listed[:2], "Invalid data found when processing input")
    scores = Scores(listed, labels, np.array([0, 1]), np.array([0, 0]), logits, errors)
    about = {
        "run_dir": "runs/none",
        "checkpoint": "best",
        "list": "lists/test.txt",
        "root": str(folder / "videos"),
        "manifest": "5" * 64,
        "label_names": list(names),
        "num_frames": 8,
        "crop_size": 224,
        "precision": "bf16",
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_scores(folder / "scores.npz", scores, about, compressed=False)
    write_tables(folder, scores, "softmax", names)
    write_json(folder / "metrics.json", {**measure(scores, "softmax"), **about, "seconds": 83.2})
    return scores
