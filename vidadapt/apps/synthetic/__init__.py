"""The renderer of the demonstration videos."""

from vidadapt.apps.synthetic.encoding import CODECS, write_video
from vidadapt.apps.synthetic.footage import FOOTAGE, Footage, generate
from vidadapt.apps.synthetic.rendering import FAMILIES, labels, render
from vidadapt.apps.synthetic.sets import contact_sheet, make_set

__all__ = [
    "CODECS",
    "FAMILIES",
    "FOOTAGE",
    "Footage",
    "contact_sheet",
    "generate",
    "labels",
    "make_set",
    "render",
    "write_video",
]
