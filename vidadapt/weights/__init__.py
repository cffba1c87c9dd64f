"""Published weights: what is known of each file, and fetching one; imports no torch.

The tiny backbone that is shipped, `model.weights demo`, lies in this folder, too.
"""

from vidadapt.weights.published import Published
from vidadapt.weights.table import PUBLISHED, of_weights

__all__ = ["PUBLISHED", "Published", "of_weights"]
