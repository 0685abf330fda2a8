"""Answers commands, one JSON object a line, by one JSON object a line, so that both sides can take turns.

The scripts take the device's name: cuda, or cpu to try them where there is no GPU.
"""

import json
import os
import sys


def serve(commands, ready):
    """`commands` by name take the command's other fields; `ready` is what the first line says."""
    # Libraries that print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say(ready)
    for line in sys.stdin:
        command = json.loads(line)
        op = command.pop("op")
        if op == "end":
            break
        try:
            say(commands[op](**command))
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}".replace("\n", " ")})


def versions():
    import importlib.metadata

    import torch

    found = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    for name in ["safetensors", "numpy"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def start():
    """A context and a stream that are up, so that no peer is charged for that; the device's name and its barrier."""
    import torch

    device = sys.argv[1]
    if device == "cpu":
        return device, lambda: None
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")
    warm = torch.ones(1 << 20).to(device, non_blocking=True)
    warm.add_(1)
    torch.cuda.synchronize()
    return device, torch.cuda.synchronize
