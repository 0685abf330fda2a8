"""One trial of another project's reader: every sample of the shards once, every byte added up.

usage: peer.py check PEER     prints the versions that matter as JSON, fails where the peer is not here
       peer.py run            takes a specification as a line of JSON on stdin, reads the files of its rehearsal,
                              prints how that went as JSON, waits for a line, prints what was measured as JSON

The sum is that of all samples' little-endian 64-bit words modulo 2**64, whatever their order.
"""

import importlib.metadata
import json
import random
import resource
import sys
import time

MASK = 2**64 - 1
PACKAGES = {
    "safetensors": ["safetensors", "torch", "ml-dtypes", "numpy"],
    "pyarrow": ["pyarrow", "numpy"],
    "dataloader": ["torch", "numpy"],
    "mlx": ["mlx"],
    "mlx-data": ["mlx-data", "numpy"],
}
NEEDED = {
    "safetensors": ["safetensors", "numpy"],
    "pyarrow": ["pyarrow", "numpy"],
    "dataloader": ["torch", "numpy"],
    "mlx": ["mlx.core", "numpy"],
    "mlx-data": ["mlx.data", "numpy"],
}


def words(array):
    """The sum of the words of a contiguous array."""
    import numpy as np

    return int(np.add.reduce(array.reshape(-1).view(np.uint64), dtype=np.uint64)) if array.size else 0


def chunks(items, size):
    for at in range(0, len(items), size):
        yield items[at : at + size]


def optional(module):
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def order_of(count, spec):
    indices = list(range(count))
    if spec["order"] != "sequential":
        random.Random(spec["seed"]).shuffle(indices)
    return indices


def safetensors_reader(spec):
    """Each tensor by get_tensor, as torch tensors where torch is there, else as NumPy's arrays."""
    from safetensors import safe_open

    torch = optional("torch")
    if torch is None:
        optional("ml_dtypes")  # Makes bfloat16 and the 8-bit floats known to NumPy.
    for path in spec["paths"]:
        with safe_open(path, framework="pt" if torch else "np") as file:
            for name in file.keys():
                if name.endswith(".offsets"):
                    continue
                tensor = file.get_tensor(name)
                yield words(tensor.view(torch.uint8).numpy() if torch else tensor)


def pyarrow_reader(spec):
    """Record batches of a mapped file in order; rows by take() where the order is random."""
    import numpy as np
    import pyarrow as pa

    def values(array):
        if isinstance(array, pa.ChunkedArray):
            return sum(values(chunk) for chunk in array.chunks) & MASK
        return words(np.asarray(array.flatten()))

    if spec["order"] == "sequential":
        for path in spec["paths"]:
            with pa.memory_map(path) as source:
                file = pa.ipc.open_file(source)
                for i in range(file.num_record_batches):
                    yield values(file.get_batch(i).column(0))
        return
    tables = [pa.ipc.open_file(pa.memory_map(path)).read_all() for path in spec["paths"]]
    table = pa.concat_tables(tables)
    for indices in chunks(order_of(table.num_rows, spec), spec["batchSize"]):
        yield values(table.take(pa.array(indices)).column(0))


class Samples:
    """The samples of mapped safetensors files, found as their headers say: a map-style dataset."""

    def __init__(self, spec):
        import numpy as np

        self.places = []
        self.maps = []
        for path in spec["paths"]:
            mapped = np.memmap(path, dtype=np.uint8, mode="r")
            length = int.from_bytes(mapped[:8].tobytes(), "little")
            header = json.loads(mapped[8 : 8 + length].tobytes())
            header.pop("__metadata__", None)
            self.add(mapped, header, 8 + length, spec["tensors"])

    def add(self, mapped, header, start, tensors):
        import numpy as np

        which = len(self.maps)
        self.maps.append(mapped)
        for name, entry in header.items():
            if name.endswith(".offsets"):
                continue
            first, last = entry["data_offsets"]
            if tensors:
                self.places.append((which, start + first, start + last))
                continue
            companion = header.get(name + ".offsets")
            count = entry["shape"][0]
            unit = (last - first) // max(1, count)
            if companion is None:
                cuts = range(count + 1)
            else:
                a, b = companion["data_offsets"]
                cuts = np.frombuffer(mapped[start + a : start + b].tobytes(), dtype="<i4").tolist()
            self.places.extend(
                (which, start + first + cuts[i] * unit, start + first + cuts[i + 1] * unit)
                for i in range(len(cuts) - 1)
            )

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        which, start, end = self.places[index]
        return self.maps[which][start:end]


class Tensors:
    """The same samples as torch tensors: what the workers of a DataLoader hand over."""

    def __init__(self, spec):
        self.samples = Samples(spec)

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        import torch

        return torch.from_numpy(self.samples[index].copy())


def as_list(batch):
    """Samples differ in length, so that a batch is a list."""
    return batch


def dataloader_reader(spec):
    """torch.utils.data.DataLoader over a map-style dataset, one worker a core up to 8."""
    import os

    import torch

    samples = Tensors(spec)
    loader = torch.utils.data.DataLoader(
        samples,
        batch_size=spec["batchSize"],
        shuffle=spec["order"] != "sequential",
        num_workers=min(8, os.cpu_count() or 1),
        collate_fn=as_list,
        generator=torch.Generator().manual_seed(spec["seed"]),
    )
    for batch in loader:
        yield sum(words(sample.numpy()) for sample in batch) & MASK


def mlx_reader(spec):
    """mlx.core.load of whole files; the values are evaluated, and read where they lie."""
    import mlx.core as mx
    import numpy as np

    for path in spec["paths"]:
        for name, array in mx.load(path).items():
            if name.endswith(".offsets"):
                continue
            plain = mx.view(array, mx.uint8)
            mx.eval(plain)
            yield words(np.array(plain, copy=False))


def mlx_data_reader(spec):
    """An mlx.data buffer of sample numbers that a transform reads, batched."""
    import mlx.data
    import numpy as np

    samples = Samples(spec)
    buffer = mlx.data.buffer_from_vector([{"i": int(i)} for i in order_of(len(samples), spec)])

    def fetch(sample):
        return {"x": np.ascontiguousarray(samples[int(sample["i"])])}

    for sample in buffer.to_stream().sample_transform(fetch).prefetch(8, 2):
        yield words(np.ascontiguousarray(sample["x"]))


READERS = {
    "safetensors": safetensors_reader,
    "pyarrow": pyarrow_reader,
    "dataloader": dataloader_reader,
    "mlx": mlx_reader,
    "mlx-data": mlx_data_reader,
}


def check(peer):
    import importlib

    for module in NEEDED[peer]:
        importlib.import_module(module)
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES[peer]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    print(json.dumps(found))


def usage():
    """Of this process and of workers that have ended."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu": own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime,
        "minor": own.ru_minflt + others.ru_minflt,
        "major": own.ru_majflt + others.ru_majflt,
    }


def peak_rss():
    """Linux's own count of this process, since what it reports of resources begins with the parent's."""
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rehearse(spec):
    """Reads other files as the trial will read its own: what starts and compiles once has done so then."""
    if "rehearsal" not in spec:
        return {}
    started = time.perf_counter()
    try:
        for value in READERS[spec["peer"]]({**spec, **spec["rehearsal"]}):
            value & MASK
    except Exception as error:  # The trial fails by itself, where it does.
        return {"seconds": time.perf_counter() - started, "error": str(error) or type(error).__name__}
    return {"seconds": time.perf_counter() - started}


def run(spec):
    import importlib

    for module in NEEDED[spec["peer"]]:
        importlib.import_module(module)
    if spec.get("memoryGroup"):
        import os

        with open(spec["memoryGroup"], "w") as group:
            group.write(str(os.getpid()))
    print(json.dumps(rehearse(spec)), flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody said when to begin")
    before = usage()
    total, latencies = 0, []
    started = asked = time.perf_counter()
    for value in READERS[spec["peer"]](spec):
        total = (total + value) & MASK
        now = time.perf_counter()
        latencies.append((now - asked) * 1000)
        asked = now
    seconds = time.perf_counter() - started
    after = usage()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "checksum": f"{total:016x}",
                "cpuSeconds": after["cpu"] - before["cpu"],
                "minorFaults": after["minor"] - before["minor"],
                "majorFaults": after["major"] - before["major"],
                "peakRssBytes": peak_rss(),
                "latenciesMs": latencies,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(sys.argv[2])
    else:
        run(json.loads(sys.stdin.readline()))
