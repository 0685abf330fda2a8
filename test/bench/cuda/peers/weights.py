"""Loads safetensors files to the GPU as their own library does. `weights.py cuda`

load: paths, way (load_file or safe_open) -> seconds, bytes
"""

import gc
import time

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from serve import serve, start, versions

DEVICE, synchronize = start()


def by_load_file(paths):
    tensors = {}
    for path in paths:
        tensors.update(load_file(path, device=DEVICE))
    return tensors


def by_safe_open(paths):
    tensors = {}
    for path in paths:
        with safe_open(path, framework="pt", device=DEVICE) as file:
            for name in file.keys():
                tensors[name] = file.get_tensor(name)
    return tensors


WAYS = {"load_file": by_load_file, "safe_open": by_safe_open}


def load(paths, way):
    # A first load finds no device memory that torch keeps from before.
    gc.collect()
    if DEVICE != "cpu":
        torch.cuda.empty_cache()
    synchronize()
    started = time.perf_counter()
    tensors = WAYS[way](paths)
    synchronize()
    seconds = time.perf_counter() - started
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {"seconds": seconds, "bytes": total, "tensors": len(tensors)}


serve({"load": load}, versions())
