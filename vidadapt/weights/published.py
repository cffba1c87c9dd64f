"""Record of one published file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """A published file of weights, with sources; what could not be checked is named.

    Attributes:
        maker: who trained and published it.
        data: what it was trained on, and how.
        licence: of the file; empty: not known.
        backbone: `model.backbone` that takes it.
        millions: parameters of that backbone, without a head or a decoder of the file.
        hub: OWNER/REPOSITORY on the Hugging Face hub; None: it is not there.
        file: its path in the repository; None: the first of `hub.FILES` that is there.
        address: page or file to open by hand; None: the hub's page.
        options: further keys of the configuration that it wants, with their values.
        size: as the hub's page shows it, e.g. "377 MB"; empty: not seen.
        sha256: the file's SHA-256, or its beginning; empty: not known.
        figure: accuracy that its makers, or timm, publish, and of what; empty: none was found.
        sources: addresses, or packages, where these facts were read.
        unverified: facts that were not checked, in words.
    """

    maker: str
    data: str
    licence: str
    backbone: str
    millions: float
    hub: str | None = None
    file: str | None = None
    address: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    size: str = ""
    sha256: str = ""
    figure: str = ""
    sources: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Address of the file or its page."""
        if self.address is not None:
            return self.address
        return f"https://huggingface.co/{self.hub}"

    @property
    def weights(self) -> str:
        """Value of `model.weights` that fetches it; FILE where it must be fetched by hand."""
        if self.hub is None:
            return "FILE"
        if self.backbone == f"timm/{self.hub.partition('/')[2]}":
            return "hub"
        return f"hub:{self.hub}" + (f"/{self.file}" if self.file else "")

    @property
    def settings(self) -> dict[str, str]:
        """Keys of the configuration that use it, with their values."""
        return {"model.backbone": self.backbone, "model.weights": self.weights, **self.options}

    @property
    def said_size(self) -> str:
        """Size of the file; where it was not seen, that of its backbone's parameters in float32."""
        return self.size or f"about {_bytes(self.millions * 4e6)}, computed"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
