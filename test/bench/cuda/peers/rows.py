"""PyTorch's DataLoader over the rows of one safetensors file, mapped, shuffled, pinned, batches to the GPU. `rows.py cuda`

open:  path, offset (of row 0), rows, columns, batch, workers, way -> {}
epoch: batches, seed -> seconds, rows
close: -> {}

way `samples`: a map-style dataset that gives one row, collated by DataLoader, as its documentation shows.
way `batches`: a sampler that gives the row numbers of whole batches, which the dataset indexes at once, as one who
knows DataLoader would write it.
"""

import time

import torch
from serve import serve, start, versions
from torch.utils.data import DataLoader, Dataset, Sampler

DEVICE, synchronize = start()
ELEMENT_BYTES = 4


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


class Batches(Rows):
    def __getitem__(self, indices):
        return self.rows[torch.as_tensor(indices)]


class Order(Sampler):
    """The first `count` of a random order, alone or in batches; both change from epoch to epoch."""

    def __init__(self, rows, batch):
        self.rows, self.batch = rows, batch
        self.count, self.seed = 0, 0

    def __len__(self):
        return self.count if self.batch is None else -(-self.count // self.batch)

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.rows, generator=generator)[: self.count]
        if self.batch is None:
            yield from order.tolist()
        else:
            for indices in order.numpy().reshape(-1, self.batch) if self.numpy() else order.split(self.batch):
                yield indices

    def numpy(self):
        """Arrays go to workers more cheaply than tensors do, but need batches of one length here."""
        return self.count % self.batch == 0


class Peer:
    def __init__(self):
        self.loader = self.order = None
        self.batch = 0

    def open(self, path, offset, rows, columns, batch, workers, way):
        self.close()
        first = offset // ELEMENT_BYTES
        flat = torch.from_file(path, shared=False, size=first + rows * columns, dtype=torch.float32)
        table = flat[first:].view(rows, columns)
        whole = way == "batches"
        self.batch = batch
        self.order = Order(rows, batch if whole else None)
        self.loader = DataLoader(
            Batches(table) if whole else Rows(table),
            batch_size=None if whole else batch,
            sampler=self.order,
            num_workers=workers,
            pin_memory=True,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers > 0 else None,
        )
        return {}

    def epoch(self, batches, seed):
        self.order.count, self.order.seed = min(batches * self.batch, self.order.rows), seed
        total = 0
        synchronize()
        started = time.perf_counter()
        for batch in self.loader:
            on_device = batch.to(DEVICE, non_blocking=True)
            total += len(on_device)
        synchronize()
        return {"seconds": time.perf_counter() - started, "rows": total}

    def close(self):
        self.loader = self.order = None
        return {}


peer = Peer()
serve({"open": peer.open, "epoch": peer.epoch, "close": peer.close}, versions())
