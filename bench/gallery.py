"""Make docs/gallery.jpg: six photographs in eight bundled styles, one row a photograph, one column a style.

    python bench/gallery.py [-o docs/gallery.jpg] [--styles a,b,...] [PHOTO...]

The photographs lie in the scikit-image package (CC0 and NASA); nothing is downloaded.
"""

import importlib.util
import io
from pathlib import Path

import click

PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg",
)  # fmt: skip
STYLES = (
    "starry-night", "great-wave", "the-scream", "composition-vii", "wheat-field", "grande-jatte", "mistral",
    "shipwreck",
)  # fmt: skip
CELL = (256, 192)
LARGEST = 1_500_000


@click.command()
@click.argument("photographs", nargs=-1, type=click.Path(exists=True))
@click.option("-o", "--output", default="docs/gallery.jpg", show_default=True)
@click.option("-m", "--model", default="live", show_default=True)
@click.option("--styles", "names", default=",".join(STYLES), show_default=True)
def main(photographs, output, model, names):
    """Write a contact sheet of photographs in styles."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    from styletools import modelfile, streams
    from styletools.engine import infer, styles

    if not photographs:
        data = Path(importlib.util.find_spec("skimage").origin).parent / "data"
        photographs = [data / name for name in PHOTOGRAPHS]
    method, digest = modelfile.load(model), modelfile.digest(modelfile.find(model))
    names = names.split(",")
    width, height = CELL
    label = 20
    sheet = Image.new("RGB", (width * len(names), height * len(photographs) + label), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, name in enumerate(names):
        style = styles.encode(method, styles.parse([name]), method_name="live", model_digest=digest)
        restyle = infer.Restyler(method, style, size=384)
        pen.text((column * width + width // 2, label // 2), name, "black", font, "mm")
        for row, photograph in enumerate(photographs):
            picture = Image.fromarray(streams.flat_rgb(restyle(streams.open_image(photograph))))
            cell = ImageOps.fit(picture, CELL, Image.Resampling.LANCZOS, centering=(0.5, 0.3))
            sheet.paste(cell, (column * width, label + row * height))
    for quality in range(90, 40, -2):
        packed = io.BytesIO()
        sheet.save(packed, "JPEG", quality=quality, optimize=True, progressive=True)
        if packed.tell() < LARGEST:
            break
    Path(output).write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
