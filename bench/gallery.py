"""Make docs/gallery.jpg: six photographs in eight bundled styles, one row a photograph, one column a style.

    python bench/gallery.py [-o docs/gallery.jpg] [--styles a,b,...] [PHOTO...]
    python bench/gallery.py --network waves.safetensors
    python bench/gallery.py --painter cut=cut.safetensors --painter oil=cultures.safetensors@oil ...

The second makes docs/johnson.jpg: three photographs in the great wave, by the bundled model and below by a network for
that style. The third makes docs/adversarial.jpg: the photographs, small, and what models of other methods make of them
(@LABEL: one that has labels), a column each. The photographs lie in the scikit-image package (CC0 and NASA); nothing is
downloaded.
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
SMALL = 128  # short side of what models see that were trained on small pictures
LARGEST = 1_500_000


@click.command()
@click.argument("photographs", nargs=-1, type=click.Path(exists=True))
@click.option("-o", "--output", default="docs/gallery.jpg", show_default=True)
@click.option("-m", "--model", default="live", show_default=True)
@click.option("--styles", "names", default=",".join(STYLES), show_default=True)
@click.option("--network", help="A model of one style: make docs/johnson.jpg instead.")
@click.option("--painter", "painters", multiple=True, help="NAME=MODEL[@LABEL]: make docs/adversarial.jpg instead.")
def main(photographs, output, model, names, network, painters):
    """Write a contact sheet of photographs in styles."""
    from styletools import modelfile
    from styletools.engine import infer, styles

    if not photographs:
        data = Path(importlib.util.find_spec("skimage").origin).parent / "data"
        photographs = [data / name for name in PHOTOGRAPHS]
    if painters:
        columns = {}
        for name, told in (word.split("=", 1) for word in painters):
            path, _, label = told.partition("@")
            painter = modelfile.load(path)
            columns.setdefault("photograph", infer.Restyler(painter, alpha=0, size=SMALL))
            columns[name] = infer.Restyler(painter, painter.own_style(label) if label else None, size=SMALL)
        write_sheet(columns, photographs, "docs/adversarial.jpg", LARGEST // 3)
        return
    method, digest = modelfile.load(model), modelfile.digest(modelfile.find(model))

    def in_style(name: str, short: int):
        style = styles.encode(method, styles.parse([name]), method_name="live", model_digest=digest)
        return infer.Restyler(method, style, size=short)

    if network:
        beside(network, in_style("great-wave", 320))
        return
    write_sheet({name: in_style(name, 384) for name in names.split(",")}, photographs, output)


def write_sheet(columns, photographs, output, largest=LARGEST) -> None:
    """Write a sheet as JPEG: a row for each photograph, a column for each name of what restyles them.

    largest: bytes that it may have.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    from styletools import streams

    width, height = CELL
    label = 20
    sheet = Image.new("RGB", (width * len(columns), height * len(photographs) + label), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, (name, restyle) in enumerate(columns.items()):
        pen.text((column * width + width // 2, label // 2), name, "black", font, "mm")
        for row, photograph in enumerate(photographs):
            picture = Image.fromarray(streams.flat_rgb(restyle(streams.open_image(photograph))))
            cell = ImageOps.fit(picture, CELL, Image.Resampling.LANCZOS, centering=(0.5, 0.3))
            sheet.paste(cell, (column * width, label + row * height))
    for quality in range(90, 40, -2):
        packed = io.BytesIO()
        sheet.save(packed, "JPEG", quality=quality, optimize=True, progressive=True)
        if packed.tell() < largest:
            break
    Path(output).write_bytes(packed.getvalue())


def beside(network, restyle) -> None:
    """Write docs/johnson.jpg: what `restyle` makes of three photographs, and below what a network of one style does."""
    from PIL import Image, ImageOps

    from styletools import modelfile, streams
    from styletools.engine import infer

    data = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    sheet = Image.new("RGB", (3 * 480, 2 * 320))
    for row, paint in enumerate((restyle, infer.Restyler(modelfile.load(network), size=320))):
        for column, name in enumerate(("coffee.png", "chelsea.png", "rocket.jpg")):
            picture = Image.fromarray(streams.flat_rgb(paint(streams.open_image(data / name))))
            sheet.paste(ImageOps.fit(picture, (480, 320), Image.Resampling.LANCZOS), (480 * column, 320 * row))
    sheet.save("docs/johnson.jpg", quality=88, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
