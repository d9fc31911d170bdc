"""Each dialect's file written out by hand from the reference pages: names and index arithmetic in plain NumPy.

Nothing of polymae's own tables is used, so that a wrong row there cannot hide.
"""

import numpy as np

LEAVES = ("weight", "bias")
STEPS = "head.0.num_batches_tracked"


def by_hand(dialect, contents, config, w):
    """What a file of this dialect holds, by the names in the file, from weights by spec name."""
    return _WRITERS[dialect](contents, config, w)


def _flat(contents, config, w):
    return dict(w)


def _official(contents, config, w):
    if contents != "probe":
        return dict(w)
    # The linear probe's head is Sequential(BatchNorm1d(affine=False), Linear); its count of steps is not compared.
    names = {"head_norm.mean": "head.0.running_mean", "head_norm.var": "head.0.running_var"}
    names |= {f"head.{leaf}": f"head.1.{leaf}" for leaf in LEAVES}
    return {names.get(name, name): array for name, array in w.items()}


def _megengine(contents, config, w):
    found = dict(w)
    for name in ("patch_embed.proj.bias", "unconv.bias"):
        if name in w:
            found[name] = w[name][None, :, None, None]
    return found


def _gamma(name):
    module, _, leaf = name.rpartition(".")
    is_norm = module.split(".")[-1] in ("norm1", "norm2", "norm", "decoder_norm", "fc_norm", "patch_norm")
    return f"{module}.{ {'weight': 'gamma', 'bias': 'beta'}[leaf] }" if is_norm else name


def _mindspore(contents, config, w):
    return {_gamma(name): array for name, array in w.items()}


def _stacks(config, w):
    """Stack, number of the block, heads, and the block's tensors by what comes after the number."""
    heads = {"blocks": config.num_heads, "decoder_blocks": getattr(config, "decoder_num_heads", 0)}
    for stack in heads:
        numbers = sorted({int(name.split(".")[1]) for name in w if name.startswith(f"{stack}.")})
        for i in numbers:
            start = f"{stack}.{i}."
            yield stack, i, heads[stack], {n[len(start) :]: a for n, a in w.items() if n.startswith(start)}


def _rest(w):
    return {name: array for name, array in w.items() if "blocks." not in name}


def _huggingface(generation):
    def write(contents, config, w):
        vit = "" if contents == "encoder" else "vit."
        names = {
            "cls_token": f"{vit}embeddings.cls_token",
            "pos_embed": f"{vit}embeddings.position_embeddings",
            "mask_token": "decoder.mask_token",
            "decoder_pos_embed": "decoder.decoder_pos_embed",
        }
        for leaf in LEAVES:
            names |= {
                f"patch_embed.proj.{leaf}": f"{vit}embeddings.patch_embeddings.projection.{leaf}",
                f"norm.{leaf}": f"{vit}layernorm.{leaf}",
                f"head.{leaf}": f"classifier.{leaf}",
                f"decoder_embed.{leaf}": f"decoder.decoder_embed.{leaf}",
                f"decoder_norm.{leaf}": f"decoder.decoder_norm.{leaf}",
                f"decoder_pred.{leaf}": f"decoder.decoder_pred.{leaf}",
            }
        found = {names[name]: array for name, array in _rest(w).items()}
        encoder = f"{vit}layers" if generation == "v5" else f"{vit}encoder.layer"
        decoder = "decoder.decoder_encoder.layer" if generation == "saved" else "decoder.decoder_layers"
        for stack, i, _, block in _stacks(config, w):
            at = f"{encoder if stack == 'blocks' else decoder}.{i}"
            for leaf in LEAVES:
                qkv = block[f"attn.qkv.{leaf}"]
                third = qkv.shape[0] // 3
                q, k, v = qkv[:third], qkv[third : 2 * third], qkv[2 * third :]
                if generation == "v5":
                    places = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj")
                    places += ("mlp.fc1", "mlp.fc2")
                else:
                    places = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
                    places += ("attention.output.dense", "intermediate.dense", "output.dense")
                arrays = (q, k, v, block[f"attn.proj.{leaf}"], block[f"mlp.fc1.{leaf}"], block[f"mlp.fc2.{leaf}"])
                found |= {f"{at}.{place}.{leaf}": array for place, array in zip(places, arrays)}
                found[f"{at}.layernorm_before.{leaf}"] = block[f"norm1.{leaf}"]
                found[f"{at}.layernorm_after.{leaf}"] = block[f"norm2.{leaf}"]
        return found

    return write


def _mmpretrain(contents, config, w):
    found = {}
    for name, array in _rest(w).items():
        module, _, leaf = name.rpartition(".")
        if name.startswith("decoder_norm."):
            found[f"neck.ln1.{leaf}"] = array
        elif name.startswith("decoder_") or name == "mask_token":
            found[f"neck.{name}"] = array
        elif module == "head":
            found[f"head.layers.head.{leaf}"] = array
        else:
            own = {"patch_embed.proj": "patch_embed.projection", "norm": "ln1", "fc_norm": "ln2"}.get(module, module)
            found["backbone." + (f"{own}.{leaf}" if own else name)] = array
    for stack, i, _, block in _stacks(config, w):
        at = f"backbone.layers.{i}" if stack == "blocks" else f"neck.decoder_blocks.{i}"
        for leaf in LEAVES:
            for ours, theirs in (
                ("norm1", "ln1"), ("attn.qkv", "attn.qkv"), ("attn.proj", "attn.proj"), ("norm2", "ln2"),
                ("mlp.fc1", "ffn.layers.0.0"), ("mlp.fc2", "ffn.layers.1"),
            ):  # fmt: skip
                found[f"{at}.{theirs}.{leaf}"] = block[f"{ours}.{leaf}"]
    return found


def _mindformers(table, trained=False):
    def write(contents, config, w):
        found = {}
        for name, array in _rest(w).items():
            names = {"cls_token": "vit.cls_tokens", "mask_token": "mask_tokens", "decoder_pos_embed": table}
            in_vit = name.startswith(("pos_embed", "patch_embed", "norm.", "fc_norm."))
            found[names.get(name) or ("vit." if in_vit else "") + _gamma(name)] = array
        for stack, i, _, block in _stacks(config, w):
            at = f"vit.blocks.{i}" if stack == "blocks" else f"decoder_blocks.{i}"
            for leaf, gamma in (("weight", "gamma"), ("bias", "beta")):
                third = block[f"attn.qkv.{leaf}"].shape[0] // 3
                for part in range(3):
                    rows = [part * third + row for row in range(third)]
                    found[f"{at}.attention.dense{part + 1}.{leaf}"] = block[f"attn.qkv.{leaf}"][rows]
                found[f"{at}.attention.projection.{leaf}"] = block[f"attn.proj.{leaf}"].T
                found[f"{at}.output.mapping.{leaf}"] = block[f"mlp.fc1.{leaf}"].T
                found[f"{at}.output.projection.{leaf}"] = block[f"mlp.fc2.{leaf}"].T
                found[f"{at}.layernorm1.{gamma}"] = block[f"norm1.{leaf}"]
                found[f"{at}.layernorm2.{gamma}"] = block[f"norm2.{leaf}"]
        if trained:
            p, channels = config.patch_size, config.in_chans
            # The official row of channel c of the pixel (y, x) is (y * p + x) * channels + c.
            rows = [(y * p + x) * channels + c for c in range(channels) for y in range(p) for x in range(p)]
            for leaf in LEAVES:
                found[f"decoder_pred.{leaf}"] = w[f"decoder_pred.{leaf}"][rows]
        return found

    return write


def _libai(contents, config, w):
    found = _rest(w)
    if contents == "classifier" and "fc_norm.weight" in found:
        for leaf in LEAVES:
            found[f"norm.{leaf}"] = found.pop(f"fc_norm.{leaf}")
    for stack, i, heads, block in _stacks(config, w):
        for leaf in LEAVES:
            width = block[f"attn.qkv.{leaf}"].shape[0] // 3
            size = width // heads
            rows = [t * width + h * size + s for h in range(heads) for t in range(3) for s in range(size)]
            at = f"{stack}.{i}"
            found[f"{at}.self_attention.query_key_value.{leaf}"] = block[f"attn.qkv.{leaf}"][rows]
            found[f"{at}.self_attention.dense.{leaf}"] = block[f"attn.proj.{leaf}"]
            found[f"{at}.mlp.dense_h_to_4h.{leaf}"] = block[f"mlp.fc1.{leaf}"]
            found[f"{at}.mlp.dense_4h_to_h.{leaf}"] = block[f"mlp.fc2.{leaf}"]
            found[f"{at}.input_layernorm.{leaf}"] = block[f"norm1.{leaf}"]
            found[f"{at}.post_attention_layernorm.{leaf}"] = block[f"norm2.{leaf}"]
    return found


def _flyegle(contents, config, w):
    """Without its gray convolution, whose values are not unique; see gray_convolution."""
    whole = contents == "classifier"
    start = "model" if whole else "Encoder"
    found = {}
    for name, array in w.items():
        if name in ("pos_embed", "decoder_pos_embed", "mask_token"):
            continue
        if name.startswith("decoder_blocks."):
            found["Decoder." + name.removeprefix("decoder_")] = array
        elif name.startswith("decoder_embed."):
            found["proj." + name.split(".")[1]] = array
        elif name.startswith("decoder_pred."):
            found["restruction." + name.split(".")[1]] = array
        elif name.startswith("patch_norm."):
            found[{"patch_norm.weight": "patch_norm.gamma", "patch_norm.bias": "patch_norm.beta"}[name]] = array
        elif name.startswith("head."):
            found["model.class_head." + name.split(".")[1]] = array
        elif name.startswith("unconv."):
            found[name] = array
        else:
            found[f"{start}.{name}"] = array
    return found


# In FlyEgle's autoencoder files, but without influence on what it computes.
FLYEGLE_UNUSED = {
    "Decoder.cls_token", "Decoder.patch_embed.proj.weight", "Decoder.patch_embed.proj.bias", "Decoder.norm.weight",
    "Decoder.norm.bias", "norm.weight", "norm.bias",
}  # fmt: skip


def gray_mask_token(config, state):
    """The mask token that FlyEgle's program makes: entry j is channel j // L of its convolution of a gray patch."""
    weight, bias = (state[f"Decoder.unmask_embed.proj.{leaf}"].astype(np.float64) for leaf in LEAVES)
    channels = []
    for o in range(len(bias)):
        total = bias[o]
        for c, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
            total += weight[o, c].sum() * (127 / 255 - mean) / std
        channels.append(total)
    return np.array([[[channels[j // config.num_patches] for j in range(config.decoder_embed_dim)]]], np.float32)


_WRITERS = {
    "mmpretrain": _mmpretrain,
    "official": _official, "timm": _flat, "polymae": _flat, "megengine": _megengine, "mindspore": _mindspore,
    "mindcv": _mindspore, "huggingface": _huggingface("v4"), "huggingface-saved-by-5": _huggingface("saved"),
    "huggingface-v5": _huggingface("v5"), "mindformers-0.8": _mindformers("decoder_pos_embed"),
    "mindformers-0.3": _mindformers("sincos_decoder_pos_embedding"),
    "mindformers-0.3-trained": _mindformers("sincos_decoder_pos_embedding", trained=True),
    "libai": _libai, "libai-cls": _libai, "flyegle": _flyegle,
}  # fmt: skip
