"""Models of random numbers in the layouts that others publish, and what these compute, written down once more.

A folder of several files is one state dict here, its keys `<file>/<key>`, as it is for the methods.
"""

import torch
from torch.nn import functional as F

VGG = {1: (64, 2), 2: (128, 2), 3: (256, 4), 4: (512, 4), 5: (512, 1)}  # block: channels, convolutions


def drawn(shapes, seed=0, scale=1.0):
    """Return {key: random tensor}: weights of a size that keeps what goes through them at its own."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            value *= scale / (shape[1] * shape[2] * shape[3]) ** 0.5
        elif key.endswith("running_var"):
            value = value.abs() + 0.5
        elif key.endswith("weight"):
            value = 1 + 0.2 * value
        else:
            value *= 0.2
        state[key] = value
    return state


def empty(shapes):
    """Return tensors of these shapes that take no memory, for those who look at shapes alone; of files, bytes."""
    kinds = {"onnx": torch.uint8}
    return {key: torch.zeros((), dtype=kinds.get(key)).expand(shape) for key, shape in shapes.items()}


def conv(key, channels_out, channels_in, kernel, bias=True):
    """Return the shapes of a convolution."""
    shapes = {f"{key}.weight": (channels_out, channels_in, kernel, kernel)}
    return shapes | ({f"{key}.bias": (channels_out,)} if bias else {})


def mirrored(x, pad):
    return F.pad(x, [pad] * 4, mode="reflect") if pad else x


# ---- fast_neural_style -----------------------------------------------------------------------------------------------


def fast_neural_style(widths=(4, 6, 8), kernel=9, blocks=5):
    a, b, c = widths
    shapes = conv("conv1.conv2d", a, 3, kernel) | conv("conv2.conv2d", b, a, 3) | conv("conv3.conv2d", c, b, 3)
    for i in range(1, blocks + 1):
        for j in (1, 2):
            shapes |= conv(f"res{i}.conv{j}.conv2d", c, c, 3)
            shapes |= {f"res{i}.in{j}.weight": (c,), f"res{i}.in{j}.bias": (c,)}
    shapes |= conv("deconv1.conv2d", b, c, 3) | conv("deconv2.conv2d", a, b, 3) | conv("deconv3.conv2d", 3, a, kernel)
    for i, channels in enumerate((a, b, c, b, a), 1):
        shapes |= {f"in{i}.weight": (channels,), f"in{i}.bias": (channels,)}
    # As the files of 2017 do, which were saved with the statistics that nobody used.
    return shapes | {"in1.running_mean": (a,), "in1.running_var": (a,)}


# ---- the generators of CycleGAN, pix2pix and CUT ---------------------------------------------------------------------


def resnet(width=4, blocks=6, batch=False, dropout=False, buffers=False, smooth=False):
    bias = not batch
    first, last = (12, 30 - 9 + blocks) if smooth else (10, 17 + blocks)
    shapes = {}

    def layer(key, norm, channels_out, channels_in, kernel, channels=None):
        shapes.update(conv(key, channels_out, channels_in, kernel, False))
        if bias:
            shapes[f"{key}.bias"] = (channels or channels_out,)
        if batch:
            shapes.update({f"{norm}.weight": (channels or channels_out,), f"{norm}.bias": (channels or channels_out,)})
        if batch or buffers:
            shapes.update({f"{norm}.running_{kind}": (channels or channels_out,) for kind in ("mean", "var")})
            shapes[f"{norm}.num_batches_tracked"] = ()

    layer("model.1", "model.2", width, 3, 7)
    layer("model.4", "model.5", 2 * width, width, 3)
    second = 8 if smooth else 7
    layer(f"model.{second}", f"model.{second + 1}", 4 * width, 2 * width, 3)
    for i in range(first, first + blocks):
        block = f"model.{i}.conv_block"
        layer(f"{block}.1", f"{block}.2", 4 * width, 4 * width, 3)
        layer(f"{block}.{5 + dropout}", f"{block}.{6 + dropout}", 4 * width, 4 * width, 3)
    up = first + blocks
    if smooth:
        layer(f"model.{up + 1}", f"model.{up + 2}", 2 * width, 4 * width, 3)
        layer(f"model.{up + 5}", f"model.{up + 6}", width, 2 * width, 3)
        shapes |= {"model.7.filt": (2 * width, 1, 3, 3), "model.11.filt": (4 * width, 1, 3, 3)}
        shapes |= {f"model.{up}.filt": (4 * width, 1, 4, 4), f"model.{up + 4}.filt": (2 * width, 1, 4, 4)}
    else:  # transposed: what goes in stands first
        layer(f"model.{up}", f"model.{up + 1}", 4 * width, 2 * width, 3, 2 * width)
        layer(f"model.{up + 3}", f"model.{up + 4}", 2 * width, width, 3, width)
    return shapes | conv(f"model.{last}", 3, width, 7)


def with_filters(state):
    """Put the blurs into a model of CUT that these always have."""
    for key, value in state.items():
        if key.endswith(".filt"):
            row = torch.tensor([1.0, 2, 1] if value.shape[-1] == 3 else [1.0, 3, 3, 1])
            blur = row[:, None] * row / row.sum() ** 2 * (1 if len(row) == 3 else 4)
            state[key] = blur.expand(value.shape).clone()
    return state


def plain_resnet(state, image, by_picture=True):
    """The generator on (N, 3, H, W) in [0, 1]; what its layers are, their keys and shapes tell."""
    blocks = sorted({int(key.split(".")[1]) for key in state if "conv_block" in key})
    first, up = blocks[0], blocks[-1] + 1
    smooth = first == 12

    def at(key, kind):
        return state.get(f"model.{key}.{kind}")

    def norm(x, key):
        weight, bias = at(key, "weight"), at(key, "bias")
        if weight is not None and not by_picture:
            return F.batch_norm(x, at(key, "running_mean"), at(key, "running_var"), weight, bias)
        return F.instance_norm(x, weight=weight, bias=bias)

    def down(x):
        return F.conv2d(mirrored(x, 1), at(7 if x.shape[1] == at(7, "filt").shape[0] else 11, "filt"), stride=2,
                        groups=x.shape[1])  # fmt: skip

    x = norm(F.conv2d(mirrored(2 * image - 1, 3), at(1, "weight"), at(1, "bias")), 2).relu()
    for key in (4, 8 if smooth else 7):
        x = norm(F.conv2d(x, at(key, "weight"), at(key, "bias"), stride=1 if smooth else 2, padding=1), key + 1).relu()
        x = down(x) if smooth else x
    for i in blocks:
        second = 5 if at(f"{i}.conv_block.5", "weight") is not None else 6
        y = x
        for j in (1, second):
            block = f"{i}.conv_block.{j}"
            y = F.conv2d(mirrored(y, 1), at(block, "weight"), at(block, "bias"))
            y = norm(y, f"{i}.conv_block.{j + 1}")
            y = y.relu() if j == 1 else y
        x = x + y
    for _ in range(2):
        if smooth:
            padded = F.pad(x, [1] * 4, mode="replicate")
            x = F.conv_transpose2d(padded, at(up, "filt"), stride=2, padding=2, groups=x.shape[1])[..., 1:-1, 1:-1]
            x = norm(F.conv2d(x, at(up + 1, "weight"), at(up + 1, "bias"), padding=1), up + 2).relu()
            up += 4
        else:
            x = norm(F.conv_transpose2d(x, at(up, "weight"), at(up, "bias"), 2, 1, 1), up + 1).relu()
            up += 3
    return (F.conv2d(mirrored(x, 3), at(up + 1, "weight"), at(up + 1, "bias")).tanh() + 1) / 2


def unet(width=4, levels=5, batch=True):
    shapes, prefix = {}, "model.model."
    widths = [width * min(2**level, 8) for level in range(levels)]

    def norm(key, channels):
        if batch:
            shapes.update({f"{key}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")})
            shapes[f"{key}.num_batches_tracked"] = ()

    for level, channels in enumerate(widths):
        above, first, last = widths[level - 1] if level else 3, level == 0, level == levels - 1
        shapes |= conv(f"{prefix}{0 if first else 1}", channels, above, 4, not batch)
        up = 3 if first or last else 5
        shapes[f"{prefix}{up}.weight"] = (channels if last else 2 * channels, above, 4, 4)
        if first or not batch:
            shapes[f"{prefix}{up}.bias"] = (above,)
        if not first and not last:
            norm(f"{prefix}2", channels)
        if not first:
            norm(f"{prefix}{up + 1}", above)
        prefix += "1.model." if first else "3.model."
    return shapes


def plain_unet(state, image, by_picture=False):
    def norm(x, key):
        weight, bias = state.get(f"{key}.weight"), state.get(f"{key}.bias")
        if weight is not None and not by_picture:
            return F.batch_norm(x, state[f"{key}.running_mean"], state[f"{key}.running_var"], weight, bias)
        return F.instance_norm(x, weight=weight, bias=bias)

    def level(x, prefix, first):
        here, inner = (0, f"{prefix}1.model.") if first else (1, f"{prefix}3.model.")
        last = f"{inner}1.weight" not in state
        weight, bias = state[f"{prefix}{here}.weight"], state.get(f"{prefix}{here}.bias")
        y = F.conv2d(x if first else F.leaky_relu(x, 0.2), weight, bias, 2, 1)
        if not last:
            y = level(y if first else norm(y, f"{prefix}2"), inner, False)
        up = 3 if first or last else 5
        y = F.conv_transpose2d(y.relu(), state[f"{prefix}{up}.weight"], state.get(f"{prefix}{up}.bias"), 2, 1)
        return y if first else torch.cat([x, norm(y, f"{prefix}{up + 1}")], 1)

    return (level(2 * image - 1, "model.model.", True).tanh() + 1) / 2


# ---- animegan2-pytorch -----------------------------------------------------------------------------------------------


def animegan2(width=4):
    w, shapes = width, {}

    def layer(key, channels_out, channels_in, kernel=3, depthwise=False):
        shapes.update(conv(f"{key}.1", channels_out, 1 if depthwise else channels_in, kernel, depthwise))
        shapes.update({f"{key}.2.weight": (channels_out,), f"{key}.2.bias": (channels_out,)})

    def residual(key, channels_out, channels_in):
        layer(f"{key}.layers.0", 2 * channels_in, channels_in, 1)
        layer(f"{key}.layers.1", 2 * channels_in, 2 * channels_in, 3, True)
        shapes.update(conv(f"{key}.layers.2", channels_out, 2 * channels_in, 1, False))
        shapes.update({f"{key}.layers.3.weight": (channels_out,), f"{key}.layers.3.bias": (channels_out,)})

    for block, sizes in {
        "a": ((w, 3, 7), (2 * w, w), (2 * w, 2 * w)), "b": ((4 * w, 2 * w), (4 * w, 4 * w)), "c": ((4 * w, 4 * w),),
        "d": ((4 * w, 4 * w), (4 * w, 4 * w)), "e": ((2 * w, 4 * w), (2 * w, 2 * w), (w, 2 * w, 7)),
    }.items():  # fmt: skip
        for i, size in enumerate(sizes):
            layer(f"block_{block}.{i}", *size)
    for i in range(1, 5):
        residual(f"block_c.{i}", 8 * w, 4 * w if i == 1 else 8 * w)
    layer("block_c.5", 4 * w, 8 * w)
    return shapes | conv("out_layer.0", 3, w, 1, False)


def plain_animegan2(state, image, align_corners=True):
    def norm(x, key):
        return F.group_norm(x, 1, state[f"{key}.weight"], state[f"{key}.bias"])

    def layer(x, key, stride=1):
        weight = state[f"{key}.1.weight"]
        x = F.pad(x, [0, 1, 0, 1], mode="reflect") if stride == 2 else mirrored(x, weight.shape[-1] // 2)
        x = F.conv2d(x, weight, state.get(f"{key}.1.bias"), stride, groups=x.shape[1] // weight.shape[1])
        return F.leaky_relu(norm(x, f"{key}.2"), 0.2)

    def residual(x, key):
        y = layer(layer(x, f"{key}.layers.0"), f"{key}.layers.1")
        y = norm(F.conv2d(y, state[f"{key}.layers.2.weight"]), f"{key}.layers.3")
        return x + y if x.shape == y.shape else y

    def larger(x, size):
        if align_corners:
            return F.interpolate(x, size, mode="bilinear", align_corners=True)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x = layer(layer(layer(2 * image - 1, "block_a.0"), "block_a.1", 2), "block_a.2")
    half = x.shape[-2:]
    x = layer(layer(layer(x, "block_b.0", 2), "block_b.1"), "block_c.0")
    for i in range(1, 5):
        x = residual(x, f"block_c.{i}")
    x = larger(layer(x, "block_c.5"), half)
    x = larger(layer(layer(x, "block_d.0"), "block_d.1"), image.shape[-2:])
    x = layer(layer(layer(x, "block_e.0"), "block_e.1"), "block_e.2")
    return (F.conv2d(x, state["out_layer.0.weight"]).tanh() + 1) / 2


# ---- encoders and decoders of VGG-19 ---------------------------------------------------------------------------------


def numbered_decoder(level):
    """The decoder of relu<level>_1 as an nn.Sequential of padding, convolution, ReLU, and upsampling between blocks."""
    shapes, place, channels = {}, 1, VGG[level][0]
    for block in range(level, 0, -1):
        below = VGG[block - 1][0] if block > 1 else 3
        depth = 1 if block == level else VGG[block][1]
        for i in range(depth):
            shapes |= conv(str(place), channels if i < depth - 1 else below, channels, 3)
            place += 3
        channels, place = below, place + 1
    return shapes


def numbered_encoder(level=4):
    shapes, place, channels = conv("0", 3, 3, 1), 2, 3
    for block in range(1, level + 1):
        for _ in range(1 if block == level else VGG[block][1]):
            shapes |= conv(str(place), VGG[block][0], channels, 3)
            channels, place = VGG[block][0], place + 3
        place += 1
    return shapes


def named_pair(level, widths):
    """An encoder and a decoder of Collaborative-Distillation."""
    encoder, decoder, channels = conv("conv0", 3, 3, 1), {}, 3
    for block in range(1, level + 1):
        for i in range(1, (1 if block == level else VGG[block][1]) + 1):
            encoder |= conv(f"conv{block}{i}", widths[block - 1], channels, 3)
            decoder |= conv(f"conv{block}{i}", channels, widths[block - 1], 3)
            channels = widths[block - 1]
        encoder |= conv(f"conv{block}1_aux", 64 * block, widths[block - 1], 1)
    return encoder, decoder


# ---- MicroAST --------------------------------------------------------------------------------------------------------


def microast(width=4):
    w, files = width, {}

    def convs(sizes):
        return {key: shape for name, size in sizes.items() for key, shape in conv(f"{name}.conv_layer", *size).items()}

    pair = {"conv1": (4 * w, 4 * w, 3), "conv2": (4 * w, 4 * w, 3)}
    encoder = {"enc1.0": (w, 3, 9), "enc1.2": (2 * w, 1, 3), "enc1.4": (2 * w, 2 * w, 1), "enc1.6": (4 * w, 1, 3),
               "enc1.8": (4 * w, 4 * w, 1)}  # fmt: skip
    encoder |= {f"enc1.10.{name}": size for name, size in pair.items()}
    encoder |= {f"enc2.0.{name}": size for name, size in pair.items()}
    files["content_encoder"] = files["style_encoder"] = convs(encoder)
    files["modulator"] = convs({f"{kind}{i}.0": (4 * w, 1, 3) for kind in ("weight", "bias") for i in (1, 2)})
    decoder = {f"dec{i}.{name}": size for i in (1, 2) for name, size in pair.items()}
    decoder |= {"dec3.1": (2 * w, 2, 3), "dec3.3": (2 * w, 2 * w, 1), "dec3.6": (w, 2, 3), "dec3.8": (w, w, 1),
                "dec3.10": (3, w, 9)}  # fmt: skip
    files["decoder"] = convs(decoder)
    return together(files)


def together(files):
    """Return the state dict of a folder of files."""
    return {f"{file}/{key}": value for file, shapes in files.items() for key, value in shapes.items()}


DISTILLED = {1: (24,), 2: (16, 32), 3: (16, 32, 64)}


def distilled(levels=(1, 2, 3)):
    files = {}
    for level in levels:
        files[f"cd16x_encoder{level}"], files[f"cd16x_decoder{level}"] = named_pair(level, DISTILLED[level])
    return together(files)


# Layout and variant: (method, layout, shapes).
LAYOUTS = {
    "fast_neural_style": ("johnson", "fast_neural_style", fast_neural_style()),
    "fast_neural_style, narrow": ("johnson", "fast_neural_style", fast_neural_style((8, 16, 32))),
    "pytorch-AdaIN": ("adain", "pytorch-AdaIN",
                      together({"vgg_normalised": numbered_encoder(), "decoder": numbered_decoder(4)})),
    "Pytorch_WCT": ("wct", "Pytorch_WCT", together({f"decoder_relu{i}_1": numbered_decoder(i) for i in range(1, 6)})),
    "Pytorch_WCT, one": ("wct", "Pytorch_WCT", numbered_decoder(3)),
    "Pytorch_WCT, relu4_1 and encoder": ("wct", "Pytorch_WCT", together(
        {"decoder_relu4_1": numbered_decoder(4), "vgg_normalised_conv5_1": numbered_encoder(5)})),
    "Pytorch_WCT, two and encoder": ("wct", "Pytorch_WCT", together(
        {"a": numbered_decoder(4), "b": numbered_decoder(2), "vgg": numbered_encoder()})),
    "Collaborative-Distillation": ("wct", "Collaborative-Distillation", distilled()),
    "MicroAST": ("microast", "MicroAST", microast()),
    "CycleGAN, 9 blocks": ("cyclegan", "CycleGAN", resnet(blocks=9)),
    "CycleGAN, 6 blocks": ("cyclegan", "CycleGAN", resnet(blocks=6)),
    "CycleGAN, dropout": ("cyclegan", "CycleGAN", resnet(dropout=True)),
    "CycleGAN, buffers": ("cyclegan", "CycleGAN", resnet(buffers=True)),
    "CycleGAN, dropout and buffers": ("cyclegan", "CycleGAN", resnet(dropout=True, buffers=True)),
    "CycleGAN, both ways": ("cyclegan", "CycleGAN", together(
        {"latest_net_G_A": resnet(), "latest_net_G_B": resnet(), "latest_net_D_A": conv("model.0", 64, 3, 4)})),
    "pix2pix, U-Net of 8 levels": ("pix2pix", "pix2pix", unet(levels=8)),
    "pix2pix, U-Net of 7 levels": ("pix2pix", "pix2pix", unet(levels=7)),
    "pix2pix, U-Net, instances": ("pix2pix", "pix2pix", unet(batch=False)),
    "pix2pix, 9 blocks": ("pix2pix", "pix2pix", resnet(blocks=9, batch=True)),
    "pix2pix, dropout": ("pix2pix", "pix2pix", resnet(batch=True, dropout=True)),
    "CUT, 9 blocks": ("cut", "CUT", resnet(blocks=9, smooth=True)),
    "CUT, 4 blocks": ("cut", "CUT", resnet(blocks=4, smooth=True)),
    "ONNX": ("onnx", "ONNX", {"onnx": (1000,)}),
    "animegan2-pytorch": ("animegan", "animegan2-pytorch", animegan2()),
}  # fmt: skip
