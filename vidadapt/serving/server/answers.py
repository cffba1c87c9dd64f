"""What a server takes and answers, as JSON: the types of its API."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Label(BaseModel):
    """One label, with the probability that an adapter gives it."""

    label: int = Field(description="place among the adapter's labels, from 0")
    name: str
    probability: float
    predicted: bool | None = Field(
        None, description="with several labels a video: whether it reaches the class's threshold"
    )


class Seen(BaseModel):
    """What one adapter sees in a video."""

    views: str = Field(description="what was looked at, e.g. `2 clips x 3 crops`")
    top: list[Label] = Field(description="the most probable labels, best first")


class Answer(BaseModel):
    """What the adapters see in a video."""

    predictions: dict[str, Seen] = Field(description="by adapter")
    warnings: list[str] = Field(description="what is odd about the file, e.g. its end is missing")
    seconds: float = Field(description="from the request's arrival to its answer")


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


class Known(BaseModel):
    """An adapter that is served."""

    name: str
    summary: str
    labels: list[str]
    multi_label: bool
    num_frames: int = Field(description="of a clip")
    crop_size: int = Field(description="side of a clip, pixels")
    views: str


class Health(BaseModel):
    """Whether requests are taken."""

    status: str = Field(description="`ok`, or `busy`: as many requests as may be")
    adapters: list[str]
    in_hand: int = Field(description="requests that are being answered")
    limit: int = Field(description="how many may be")


class OnDisk(BaseModel):
    """A video below the server's root."""

    path: str = Field(description="relative to the root, or absolute and below it")
    adapters: list[str] = Field([], description="empty: all that are served")
    top: int = Field(5, ge=1, description="how many labels")
