"""What a training tells: journal, sheets, TensorBoard."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from styletools import errors, methods
from styletools.engine import reports


def opened(output, **options):
    told = {"begun": 0, "resume": False, "overwrite": False, "sheets": True, "tensorboard": False} | options
    return reports.Reports(output, 100, **told)


def test_a_resumed_journal_tells_every_step_once(tmp_path):
    output = tmp_path / "m.safetensors"
    report = opened(output)
    for step in (50, 100, 150):
        report.entry(step, {"loss": 1.0})
    with open(tmp_path / "m.log.jsonl", "a") as out:
        out.write('{"step": 2')  # the machine went off here
    report = opened(output, begun=120, resume=True)
    report.entry(150, {"loss": 2.0})
    entries = [json.loads(line) for line in (tmp_path / "m.log.jsonl").read_text().splitlines()]
    assert entries == [{"step": step, "loss": loss} for step, loss in [(50, 1.0), (100, 1.0), (150, 2.0)]]
    opened(output)
    assert (tmp_path / "m.log.jsonl").read_bytes() == b"", "a fresh run begins a fresh journal"


def test_sheets(tmp_path):
    report = opened(tmp_path / "m.safetensors")
    pixels = torch.arange(6 * 8 * 3, dtype=torch.uint8).view(6, 8, 3)
    report.sheet(500, pixels)
    report.sheet(12_345_678, pixels)
    assert (np.asarray(Image.open(tmp_path / "m.samples/step-000500.png")) == pixels.numpy()).all()
    (tmp_path / "m.samples/mine.png").touch()
    opened(tmp_path / "m.safetensors", overwrite=True)
    assert [path.name for path in (tmp_path / "m.samples").iterdir()] == ["mine.png"]


@pytest.mark.parametrize(("name", "kind"), [("m.samples", "file"), ("m.log.jsonl", "folder")])
def test_what_is_in_the_way_is_found_at_once(name, kind, tmp_path):
    (tmp_path / name).touch() if kind == "file" else (tmp_path / name).mkdir()
    with pytest.raises(errors.CannotCreate, match=name):
        opened(tmp_path / "m.safetensors")


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = opened(tmp_path / "m.safetensors", tensorboard=True)
    report.entry(50, {"loss": 0.5, "lr": 1.0})
    report.entry(60, {"validation": {"loss": 0.25}})
    report.entry(100, {"loss": 0.125})
    report.sheet(50, torch.zeros(4, 6, 3, dtype=torch.uint8))
    report.close()
    report = opened(tmp_path / "m.safetensors", tensorboard=True, resume=True, begun=60)
    report.entry(100, {"loss": 0.0625})
    report.close()
    found = EventAccumulator(str(tmp_path / "m.tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(50, 0.5), (100, 0.0625)]
    assert [(event.step, event.value) for event in found.Scalars("validation/loss")] == [(60, 0.25)]
    assert [image.step for image in found.Images("samples")] == [50]
    assert not report.lost


class Mirror(methods.Method):
    """Gives back the image; the style it was told goes into the red."""

    multiple = 16

    def encode_style(self, images, weights):
        return {"red": images[0][:, :1].mean()}

    def apply(self, image, *, style=None, alpha=1.0):
        assert image.shape[-1] % self.multiple == 0
        red = style["red"] if style else torch.zeros(())
        return torch.cat([red.expand_as(image[:, :1]), image[:, 1:]], 1)


@pytest.mark.parametrize(
    ("applies_to", "kinds", "columns"),
    [("image+style", ("content", "style"), 3), ("image+style", ("images",), 3), ("image", ("content",), 2),
     ("image", ("content", "style"), 3)],
)  # fmt: skip
def test_a_sheet_has_content_style_and_result(applies_to, kinds, columns):
    torch.manual_seed(0)
    batch = {kind: torch.rand(8, 3, 20, 20) for kind in kinds}
    found = reports.sheet(applies_to, Mirror(), batch)
    assert found.shape == (reports.ROWS * 20, columns * 20, 3) and found.dtype == torch.uint8
    row = (found[20:40].permute(2, 0, 1).float() / 255).split(20, -1)
    content = batch[kinds[0]][1]
    style = batch["style"][1] if "style" in batch else batch[kinds[0]][0]
    torch.testing.assert_close(row[0], content, atol=1 / 255, rtol=0)
    red = torch.zeros(())
    if applies_to == "image+style":
        torch.testing.assert_close(row[1], style, atol=1 / 255, rtol=0)
        red = style[0].mean()
    expected = torch.cat([red.expand(1, 20, 20), content[1:]])
    torch.testing.assert_close(row[-1], expected, atol=1 / 255, rtol=0)


def test_labels_are_not_shown():
    torch.manual_seed(0)
    batch = {"content": torch.rand(8, 3, 20, 20), "labelled": torch.rand(8, 3, 20, 20), "label": torch.arange(8)}
    found = reports.sheet("image", Mirror(), batch)
    assert torch.equal(found, reports.sheet("image", Mirror(), {key: batch[key] for key in ("content", "labelled")}))


def test_of_what_there_are_sheets():
    class Noise(methods.Method):
        def sample(self, batch):
            return batch["images"]

    assert reports.can_sample("image", Mirror()) and reports.can_sample("image+style", Mirror())
    assert not reports.can_sample("nothing", Mirror()) and reports.can_sample("noise", Noise())


def test_a_sheet_of_what_is_made_from_noise():
    class Plain(methods.Method):
        """Makes pictures of one colour, told by the noise."""

        def __init__(self):
            self.config = methods.create("dcgan", {"z_dim": 3, "image_size": 16, "channels": 1}).config

        def generate(self, z, label=None):
            return torch.sigmoid(z)[..., None, None].expand(-1, -1, 20, 20)

    torch.manual_seed(0)
    batch = {"images": torch.rand(8, 3, 20, 20)}
    assert reports.can_sample("noise", Plain())
    found = reports.sheet("noise", Plain(), batch)
    assert found.shape == (4 * 20, 4 * 20, 3) and found.dtype == torch.uint8
    cells = found.unflatten(0, (4, 20)).unflatten(2, (4, 20)).transpose(1, 2).reshape(16, 400, 3)
    assert (cells == cells[:, :1]).all() and len(cells[:, 0].unique(dim=0)) == 16
    assert torch.equal(reports.sheet("noise", Plain(), {"images": torch.rand(2, 3, 20, 20)}), found), "the same noise"
