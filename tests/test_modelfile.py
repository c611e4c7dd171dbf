"""Model files: what is saved comes back, and what does not fit is refused in words."""

import hashlib
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from styletools import __version__, errors, files, methods, modelfile


def saved(path, name, config=None, **kwargs):
    method = methods.create(name, config)
    modelfile.save(path, name, method, **kwargs)
    return method


def kept(method):
    """Return the tensors that applying needs, by `<net>.<key>`."""
    nets = method.keep or tuple(method.nets)
    return {f"{net}.{key}": value for net in nets for key, value in method.nets[net].state_dict().items()}


@pytest.mark.parametrize("name", methods.names())
def test_round_trip(name, tmp_path):
    path = tmp_path / "m.safetensors"
    how = {"trained_on": "twelve photographs", "licence": "MIT", "created_by": "st-train x"}
    method = saved(path, name, {"width": 4} if name == "pix2pix" else None, step=7, **how)
    again = modelfile.load(path)
    assert type(again) is type(method) and again.config == method.config
    assert kept(again).keys() == kept(method).keys()
    for key, value in kept(method).items():
        assert torch.equal(kept(again)[key], value), key
    assert not any(net.training for net in again.nets.values())
    header = modelfile.read_header(path)
    assert json.loads(header.pop("config")) == vars(method.config)
    assert header == {
        "styletools": "1", "kind": "model", "method": name, "step": "7", "version": __version__,
        "created_by": "st-train x", "trained_on": "twelve photographs", "licence": "MIT",
    }  # fmt: skip


def test_the_same_model_is_the_same_bytes(tmp_path):
    method = methods.create("live", {"channels": 8, "widths": "8"})
    told = {"step": 7, "trained_on": "these", "licence": "MIT", "created_by": "this"}
    for i in range(8):  # the library's own order is drawn anew at each save
        modelfile.save(tmp_path / f"{i}.safetensors", "live", method, **told)
    assert len({modelfile.digest(path) for path in tmp_path.iterdir()}) == 1


def test_numbers_that_16_bits_cannot_hold_stay_in_32(tmp_path, slim):
    """As the variances of the features of published networks."""
    method = methods.create("retention")
    method.nets["generator"].given.running_var.fill_(1e6)
    modelfile.save(tmp_path / "a.safetensors", "retention", method, half=True)
    _, _, tensors = modelfile.read(tmp_path / "a.safetensors")
    assert (tensors["generator.given.running_var"].float() == 1e6).all()
    assert tensors["generator.given.running_mean"].dtype == torch.float16


def test_half_is_half_the_size_and_close(tmp_path):
    method = saved(tmp_path / "a.safetensors", "live")
    modelfile.save(tmp_path / "b.safetensors", "live", method, half=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("a.safetensors", "b.safetensors")]
    assert sizes[1] < 0.52 * sizes[0]
    again = kept(modelfile.load(tmp_path / "b.safetensors"))
    for key, value in kept(method).items():
        assert again[key].dtype == value.dtype
        torch.testing.assert_close(again[key], value, rtol=1e-3, atol=1e-3)


def test_coarse_matrices_take_eight_bits_and_lose_no_more_when_saved_again(tmp_path):
    method = methods.create("live")
    weights = method.nets["encoder"].code.weight
    with torch.no_grad():
        weights[0], weights[1], weights[2] = 0, 1e-9 * weights[1], 1e4 * weights[2]
    modelfile.save(tmp_path / "a.safetensors", "live", method, half=True)
    again = modelfile.load(tmp_path / "a.safetensors")
    found = again.nets["encoder"].code.weight
    largest = weights.abs().amax(1, keepdim=True)
    assert ((found - weights).abs() <= largest / 127 * 0.501).all() and not found[0].any()
    assert torch.equal(again.nets["trunk"].out.weight, method.nets["trunk"].out.weight.half().float())
    modelfile.save(tmp_path / "b.safetensors", "live", again, half=True)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    matrices = sum(value.numel() for value in method.nets["encoder"].state_dict().values() if value.dim() == 2)
    others = sum(value.numel() for value in kept(method).values()) - matrices
    assert (tmp_path / "a.safetensors").stat().st_size < matrices + 2 * others + 40_000


def test_file_names_that_are_no_text_do_not_spoil_the_saving(tmp_path):
    saved(tmp_path / "m.safetensors", "live", created_by="st-train live --style caf\udce9/", trained_on="caf\udce9")
    header = modelfile.read_header(tmp_path / "m.safetensors")
    assert header["created_by"] == "st-train live --style caf?/" and header["trained_on"] == "caf?"


@pytest.mark.parametrize("method", ["nowhere", None])
def test_a_model_of_a_method_that_is_not_here(tmp_path, method):
    saved(tmp_path / "m.safetensors", "live")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    del header["__metadata__"]["method"]
    header["__metadata__"] |= {"method": method} if method else {}
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
    with pytest.raises(errors.DoesNotFit, match="m.safetensors: unknown method"):
        modelfile.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("shape", "offset"), [([1], -4), ([-1], 4), ([1], None)])
def test_sizes_below_zero_are_damage(tmp_path, shape, offset):
    def header(offset):
        text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, offset]}}).encode()
        return struct.pack("<Q", len(text)) + text

    # The last leads back to the very beginning: whoever follows it never ends.
    whole = header(offset if offset is not None else -len(header(-10)))
    (tmp_path / "m.safetensors").write_bytes(whole + b"1234")
    with pytest.raises(errors.DataError, match="not a safetensors file"):
        list(modelfile.read_headers(tmp_path / "m.safetensors"))


def test_given_tensors_replace_the_networks_own(tmp_path):
    method = methods.create("live")
    average = {key: torch.full_like(value, 0.5) for key, value in kept(method).items()}
    modelfile.save(tmp_path / "m.safetensors", "live", method, tensors=average)
    assert all((value == 0.5).all() for value in kept(modelfile.load(tmp_path / "m.safetensors")).values())


def test_channels_last_weights_are_saved_as_they_mean(tmp_path):
    method = methods.create("live")
    expected = {key: value.clone() for key, value in kept(method).items()}
    for net in method.nets.values():
        net.to(memory_format=torch.channels_last)
    modelfile.save(tmp_path / "m.safetensors", "live", method)
    again = kept(modelfile.load(tmp_path / "m.safetensors"))
    assert all(torch.equal(again[key], value) for key, value in expected.items())


def test_only_what_applying_needs_is_kept(tmp_path):
    method = saved(tmp_path / "m.safetensors", "live")
    assert {key.partition(".")[0] for key in load_file(tmp_path / "m.safetensors")} == set(method.keep)


def test_a_failed_save_keeps_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    saved(path, "gatys")
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(errors.TryAgain):
        saved(path, "live")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_header_costs_no_torch(tmp_path):
    saved(tmp_path / "m.safetensors", "gatys")
    code = (
        "import sys; from styletools import modelfile; print(modelfile.check(sys.argv[1])['method'],"
        "any(m in sys.modules for m in ('torch', 'numpy', 'safetensors')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    assert subprocess.check_output(command, text=True) == "gatys False\n"


# What is refused


def with_header(path, header, tensors=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    return path


def test_files_that_are_none(tmp_path):
    with pytest.raises(errors.MissingInput, match="none.safetensors: no such file"):
        modelfile.read_header(tmp_path / "none.safetensors")
    path = tmp_path / "x.safetensors"
    for header in (b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"[" * 100_000, b'{"__metadata__": 3}',
                   b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}'):
        with pytest.raises(errors.DataError, match="not a safetensors file"):
            modelfile.read_header(with_header(path, header))
    for content in (b"", b"\x89PNG\r\n\x1a\n" + bytes(40), b"PK\x03\x04", struct.pack("<Q", 1 << 62) + b"{}"):
        path.write_bytes(content)
        with pytest.raises(errors.DataError, match="not a safetensors file"):
            modelfile.read_header(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_header_or_an_error(tmp_path_factory, content, framed):
    path = tmp_path_factory.mktemp("bytes") / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(content)) + content if framed else content)
    try:
        header = modelfile.read_header(path)
    except errors.DataError:
        return
    assert all(isinstance(value, str) for value in header.values())


def test_records_of_other_kinds(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "s.safetensors", {"kind": "style", "styletools": "1"})
    with pytest.raises(errors.DoesNotFit, match="not a model but a record of kind 'style'"):
        modelfile.load(tmp_path / "s.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "t.safetensors", {"kind": ""})
    with pytest.raises(errors.DoesNotFit, match="t.safetensors: not a model$"):
        modelfile.load(tmp_path / "t.safetensors")


def rewritten(path, **changes):
    """Save a model of gatys with other metadata."""
    saved(path, "gatys")
    metadata = {**modelfile.read_header(path), **changes}
    save_file({}, path, {key: value for key, value in metadata.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"styletools": "2"}, "model format 2, this version reads 1"),
        ({"styletools": None}, "model format None"),
        ({"method": "gatis"}, "unknown method 'gatis': did you mean gatys"),
        ({"method": None}, "unknown method ''"),
        ({"config": '{"depth": 3}'}, "gatys does not know this configuration: .*depth"),
        ({"config": "[1]"}, "does not know this configuration"),
        ({"config": '{"steps": "many"}'}, "str"),
        ({"config": '{"optimizer": "sgd"}'}, "lbfgs or adam"),
    ],
)
def test_models_of_other_versions(tmp_path, changes, message):
    with pytest.raises(errors.DoesNotFit, match=message) as caught:
        modelfile.load(rewritten(tmp_path / "m.safetensors", **changes))
    assert str(caught.value).startswith(str(tmp_path / "m.safetensors"))


def test_a_configuration_that_is_no_json(tmp_path):
    with pytest.raises(errors.DataError, match="damaged model file"):
        modelfile.load(rewritten(tmp_path / "m.safetensors", config="{"))


def test_a_cut_model(tmp_path):
    path = tmp_path / "m.safetensors"
    saved(path, "live")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(errors.DataError, match="damaged model file"):
        modelfile.load(path)


@pytest.mark.parametrize("fault", ["shape", "missing", "extra"])
def test_tensors_that_do_not_fit(tmp_path, fault):
    path = tmp_path / "m.safetensors"
    method = saved(path, "live")
    tensors = {key: value.clone() for key, value in kept(method).items()}
    if fault == "shape":
        tensors["trunk.out.bias"] = torch.zeros(13)
    elif fault == "missing":
        del tensors["trunk.out.bias"]
    else:
        tensors["trunk.extra"] = torch.zeros(1)
    save_file(tensors, path, modelfile.read_header(path))
    expected = "trunk.extra" if fault == "extra" else "trunk.out.bias"
    with pytest.raises(errors.DoesNotFit, match=rf"do not fit its configuration \({expected}\)"):
        modelfile.load(path)


# How models are found


def test_find(tmp_path, monkeypatch):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    monkeypatch.setattr(files, "zoo_dir", lambda: zoo)
    saved(zoo / "ours.safetensors", "gatys")
    save_file({"a": torch.zeros(1)}, zoo / "style.safetensors", {"kind": "style"})
    assert modelfile.bundled() == {"ours": zoo / "ours.safetensors"}
    assert modelfile.find("ours") == zoo / "ours.safetensors"
    assert modelfile.load("ours").config.steps > 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours").write_bytes(b"a file of that name comes first")
    assert modelfile.find("ours").read_bytes() == b"a file of that name comes first"
    with pytest.raises(errors.MissingInput, match=r"yours: no such model \(bundled models: ours\)"):
        modelfile.find("yours")
    with pytest.raises(errors.MissingInput, match="yours.safetensors: no such model$"):
        modelfile.find("yours.safetensors")
    with pytest.raises(errors.DataError, match="is a directory that holds no published checkpoints"):
        modelfile.find(str(zoo))
    (tmp_path / "ours").unlink()
    (tmp_path / "ours").mkdir()
    assert modelfile.find("ours") == zoo / "ours.safetensors", "a folder without a model does not hide one"


def test_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert modelfile.digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(errors.MissingInput):
        modelfile.digest(tmp_path / "b")


def test_a_model_reads_the_same_by_other_readers(tmp_path):
    from safetensors.numpy import load_file as load_arrays

    method = saved(tmp_path / "m.safetensors", "live")
    for key, value in load_arrays(tmp_path / "m.safetensors").items():
        np.testing.assert_array_equal(value, kept(method)[key].numpy())


# Published checkpoints: a small microast in its publisher's layout stands for all


FILES = {"content_encoder": "a", "style_encoder": "b", "modulator": "c", "decoder": "d"}


def theirs():
    """Return a random microast as its publisher would write it: {file: state dict}."""
    torch.manual_seed(0)
    ours = kept(methods.create("microast", {"channels": 4}))
    parts = {name: {} for name in FILES}
    back = {"up.": "dec3.", "deep.": {"decoder": "dec1."}, "shallow.": {"decoder": "dec2."}}
    back |= {"deep_factor": "weight2.0", "deep_share": "bias2.0"}
    back |= {"shallow_factor": "weight1.0", "shallow_share": "bias1.0"}
    encoder = {"deep.": "enc2.0.", "shallow.": "enc1."}
    for key, value in ours.items():
        net, _, name = key.partition(".")
        for ours_begins, begins in back.items():
            if name.startswith(ours_begins):
                begins = begins if isinstance(begins, str) else begins.get(net, encoder[ours_begins])
                name = begins + name.removeprefix(ours_begins)
                break
        layer, _, kind = name.rpartition(".")
        parts[net][f"{layer}.conv_layer.{kind}"] = value.clone()
    return parts


@pytest.fixture
def published(tmp_path):
    """A folder with the four files of a published model, of all formats that there are."""
    folder = tmp_path / "published"
    folder.mkdir()
    parts = theirs()
    torch.save(parts["content_encoder"], folder / "content_encoder.pth.tar", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": parts["style_encoder"], "epoch": 3, "rates": {"lr": 1e-4}}, folder / "style_encoder.pt")
    save_file(parts["modulator"], folder / "modulator.safetensors", {"format": "pt"})
    wrapped = {f"module._orig_mod.{key}": value for key, value in parts["decoder"].items()}
    torch.save({"params": {}, "params_ema": wrapped}, folder / "decoder.ckpt")
    return folder


def test_a_published_model_is_read(published):
    model = modelfile.load(published)
    assert model.config.channels == 4 and not any(net.training for net in model.nets.values())
    torch.manual_seed(0)
    expected = kept(methods.create("microast", {"channels": 4}))
    assert all(torch.equal(value, expected[key]) for key, value in kept(model).items())
    header = modelfile.check(published)
    assert header == {
        "kind": "model", "method": "microast", "config": '{"channels": 4}', "origin": "published checkpoint",
        "layout": "MicroAST",
    }  # fmt: skip
    (shown,) = modelfile.describe(published)
    assert shown.metadata == header and shown.tensors["decoder.up.10.weight"] == ("F32", (3, 4, 9, 9))


def test_any_part_of_a_published_model_stands_for_all(published):
    (published / "README.md").write_text("what it is")
    torch.save({"0.weight": torch.zeros(3)}, published / "other.pth")
    for path in modelfile.checkpoints(published):
        assert modelfile.find(str(path)) == (path if path.name == "other.pth" else published)
    with pytest.raises(errors.DoesNotFit, match="other.pth: tensors of no method that is known here: 0.weight$"):
        modelfile.load(published / "other.pth")
    (published / "modulator.safetensors").unlink()
    decoder = published / "decoder.ckpt"
    assert modelfile.find(str(decoder)) == decoder
    with pytest.raises(errors.DoesNotFit, match=r"decoder.ckpt: tensors of no method .*: dec\S*, \S*, \S*, \.\.\.$"):
        modelfile.load(decoder)


@pytest.mark.parametrize("wrapper", ["", *modelfile.WRAPPERS])
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappings_are_taken_off(tmp_path, wrapper, zipped):
    state = {"module.netG.a.weight": torch.ones(2), "_orig_mod.module.b": torch.zeros(1, 2), "steps": 7, 3: "x"}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(errors.DoesNotFit, match=r"m.pth: tensors of no method that is known here: a.weight, b$"):
        modelfile.check(tmp_path / "m.pth")


class Evil:
    """Unpickled as code is, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False, None])
def test_nothing_in_a_checkpoint_is_run(tmp_path, zipped, published):
    mark = tmp_path / "mark"
    bad = published / "bad.pth"
    content = {"dec1.weight": torch.zeros(1), "evil": Evil(mark)}
    if zipped is None:
        bad.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, bad, _use_new_zipfile_serialization=zipped)
    for use in (modelfile.check, modelfile.load, lambda path: list(modelfile.describe(path))):
        with pytest.raises(errors.DataError, match="bad.pth: damaged, or holds more than tensors"):
            use(bad)
    assert modelfile.load(published).config.channels == 4, "what cannot be read is left out of a folder"
    for path in modelfile.checkpoints(published):
        if path != bad:
            path.unlink()
    with pytest.raises(errors.DataError, match="bad.pth: damaged"):
        modelfile.load(published)
    assert not mark.exists()
    bad.write_bytes(pickle.dumps(content))
    pickle.loads(bad.read_bytes())["evil"].close()
    assert mark.exists(), "the trap is one"


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("name", ["content_encoder.pth.tar", "style_encoder.pt", "modulator.safetensors"])
def test_damaged_checkpoints(published, name, keep):
    path = published / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(errors.DataError) as caught:
        modelfile.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_holds_no_tensors(tmp_path):
    loop = {"a": 1}
    loop["model"] = loop
    for content in ([torch.zeros(1)], torch.zeros(1), {}, {"state_dict": {"epoch": 1}}, loop):
        torch.save(content, tmp_path / "m.pth")
        with pytest.raises(errors.DataError, match="m.pth: holds no named tensors"):
            modelfile.load(tmp_path / "m.pth")
    np.savez(tmp_path / "m.npz", a=np.zeros(2))
    with pytest.raises(errors.DataError, match="m.npz: damaged, or holds more than tensors"):
        modelfile.load(tmp_path / "m.npz")


def test_a_collection_is_not_a_model(published):
    for i in range(modelfile.MOST_FILES):
        torch.save({"a": torch.zeros(1)}, published / f"{i}.pth")
    with pytest.raises(errors.DoesNotFit, match="holds 20 checkpoints of 0 MiB, more than the parts of one model"):
        modelfile.load(published)


def test_large_checkpoints_are_not_read_to_see_whether_they_belong_together(published, monkeypatch):
    monkeypatch.setattr(modelfile, "MOST_BYTES", 1000)
    with pytest.raises(errors.DoesNotFit, match="holds 4 checkpoints of 0 MiB, more than the parts of one model"):
        modelfile.load(published)


def test_what_begins_as_no_model_does(tmp_path):
    for content, what in ((b"", "is empty"), (b"ustar" * 9, "not a safetensors file, a checkpoint of PyTorch")):
        (tmp_path / "m.pth").write_bytes(content)
        for use in (modelfile.check, modelfile.load, lambda path: list(modelfile.describe(path))):
            with pytest.raises(errors.DataError, match=f"m.pth: {what}"):
                use(tmp_path / "m.pth")


def test_two_models_in_a_folder_are_not_mixed(published):
    torch.save(theirs()["decoder"], published / "decoder_of_another.pth")
    with pytest.raises(errors.DoesNotFit, match="tensors of no method"):
        modelfile.load(published)


def test_the_digest_of_a_folder_is_that_of_its_checkpoints(published):
    before = modelfile.digest(published)
    (published / "README.md").write_text("what it is")
    assert modelfile.digest(published) == before
    together = b"".join(path.read_bytes() for path in sorted(published.glob("*[!d]")))
    assert hashlib.sha256(together).hexdigest() == before
    torch.save({"a": torch.ones(1)}, published / "more.pth")
    assert modelfile.digest(published) != before


def test_the_types_of_tensors_are_called_as_safetensors_call_them(tmp_path):
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
    kinds |= {"BOOL": torch.bool, "F64": torch.float64, "I16": torch.int16}
    save_file({name: torch.zeros(1).to(kind) for name, kind in kinds.items()}, tmp_path / "t.safetensors")
    (header,) = modelfile.read_headers(tmp_path / "t.safetensors")
    assert {name: kind for name, (kind, _) in header.tensors.items()} == {name: name for name in kinds}
    for name, kind in kinds.items():
        assert modelfile._type(torch.zeros(1).to(kind)) == name


def test_looking_at_our_own_files_costs_no_torch(tmp_path):
    saved(tmp_path / "m.safetensors", "gatys")
    code = (
        "import sys; from styletools import modelfile as m; path = m.find(sys.argv[1]); m.check(path), m.digest(path);"
        "list(m.describe(path)), m.checkpoints(path.parent);"
        "print(any(x in sys.modules for x in ('torch', 'numpy', 'safetensors')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    assert subprocess.check_output(command, text=True) == "False\n"
