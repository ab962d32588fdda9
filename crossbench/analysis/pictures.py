"""Plots of the reports as pictures in notebooks."""

from __future__ import annotations

import base64
import html
import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from crossbench.report.drawing import Draw, draw

_COLOURS = 128  # of a picture


@dataclass(frozen=True)
class Pictures:
    """Plots that Jupyter displays: PNG images by title, and the reasons for missing plots."""

    images: Mapping[str, bytes]
    missing: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The titles alone, since notebooks store this text beside the pictures."""
        return f"Pictures({', '.join([*self.images, *self.missing])})"

    def _repr_html_(self) -> str:
        notes = "".join(
            f"<p>Missing plot: {html.escape(title)}: {html.escape(why)}</p>"
            for title, why in self.missing.items()
        )
        return notes + "".join(
            f'<figure><img alt="{html.escape(title)}" style="max-width: 100%" '
            f'src="data:image/png;base64,{base64.b64encode(image).decode("ascii")}">'
            f"<figcaption>{html.escape(title)}</figcaption></figure>"
            for title, image in self.images.items()
        )


def draw_pictures(plan: Callable[[Path], Mapping[str, Draw]]) -> Pictures:
    """Draw the plots that `plan` returns for the folder that it is given."""
    with tempfile.TemporaryDirectory() as folder:
        plots = draw(partial(plan, Path(folder)))
        images = {title: _small_png(path) for title, path in plots.paths.items()}
    return Pictures(images, plots.missing)


def _small_png(path: Path) -> bytes:
    """The picture as a PNG with a palette: a third of the bytes, as plots have few colours."""
    from PIL import Image

    made = io.BytesIO()
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    reduced.save(made, "png", optimize=True)
    return made.getvalue()
