"""Keras without what kzoo's own processes never use: 3 to 4 seconds to import, instead of 5.

Standard library only.
"""

from __future__ import annotations

import sys
import types

LEFT_OUT = (
    "keras.src.wrappers.sklearn_wrapper",  # imports scikit-learn and SciPy's statistics
    "keras.src.visualization.plot_image_gallery",  # imports Matplotlib, as does the next
    "keras.src.visualization.plot_bounding_box_gallery",
)


class _LeftOut(types.ModuleType):
    """Whatever is imported from it is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def light_keras() -> None:
    """Leaves modules out of a later ``import keras``.

    For processes that are kzoo's alone, the command line and its children. `import kzoo` leaves
    Keras whole: somebody else may want ``keras.wrappers.SKLearnClassifier``.
    """
    if "keras" not in sys.modules:
        for name in LEFT_OUT:
            sys.modules.setdefault(name, _LeftOut(name))
