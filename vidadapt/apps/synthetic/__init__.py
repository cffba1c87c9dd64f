"""The renderer of the demonstration videos."""

from vidadapt.apps.synthetic.encoding import CODECS, encode, in_processes, write_video
from vidadapt.apps.synthetic.rendering import FAMILIES, labels, render
from vidadapt.apps.synthetic.sets import contact_sheet, make_set

__all__ = [
    "CODECS",
    "FAMILIES",
    "contact_sheet",
    "encode",
    "in_processes",
    "labels",
    "make_set",
    "render",
    "write_video",
]
