"""Hugging Face transformers over the same requests. `transformers_peer.py MODEL REQUESTS MODE LIMIT DEVICE [ROUNDS]`

MODE is `continuous` (transformers' own continuous batching over paged SDPA, each request with its own bound on new
tokens) or `static` (batches of 32 in the order of the requests, padded on the left, each run until its longest is done;
of what it makes only the tokens that were asked for count). What is timed begins with a warm model. LIMIT is in
seconds: static batches stop being started then, and continuous batching that takes longer has no result. Prints one
line of JSON: { outputTokens, seconds (one a round), requests, versions, gpu } or { error }.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GenerationConfig

BATCH = 32
NO_END = -1


def read_requests(path):
    tensors = load_file(path)
    tokens, offsets = tensors["tokens"].tolist(), tensors["tokens.offsets"].tolist()
    prompts = [tokens[start:end] for start, end in zip(offsets, offsets[1:])]
    return prompts, tensors["max_new_tokens"].tolist()


def synchronize(device):
    if device != "cpu":
        torch.cuda.synchronize()


def hints_of(prompts, bounds):
    """What transformers is told of the work ahead, where this version asks for it."""
    try:
        from transformers.generation.continuous_batching.utils import WorkloadHints
    except ImportError:
        return {}
    hints = WorkloadHints(
        max_prompt_length=max(map(len, prompts)),
        max_generated_length=max(bounds),
        num_requests=len(prompts),
    )
    return {"workload_hints": hints}


def run_continuous(manager, prompts, bounds, limit):
    """Seconds and tokens of one round."""
    started = time.perf_counter()
    for prompt, bound in zip(prompts, bounds):
        manager.add_request(prompt, max_new_tokens=bound, eos_token_id=NO_END)
    tokens = finished = 0
    while finished < len(prompts):
        if time.perf_counter() - started > limit:
            raise TimeoutError(f"{finished} of {len(prompts)} requests in {limit} s")
        result = manager.get_result(timeout=1)
        if result is None:
            if not manager.is_running():
                raise RuntimeError("its generation thread ended")
            continue
        if result.error is not None:
            raise RuntimeError(result.error)
        if result.is_finished():
            tokens += len(result.generated_tokens)
            finished += 1
    return time.perf_counter() - started, tokens


def continuous(model, prompts, bounds, limit, rounds):
    config = GenerationConfig(do_sample=False, max_new_tokens=max(bounds), eos_token_id=NO_END)
    manager = model.init_continuous_batching(generation_config=config, **hints_of(prompts, bounds))
    warmup = getattr(manager, "warmup", None)
    if warmup is not None:
        warmup()
    manager.start()
    try:
        run_continuous(manager, prompts[:8], [min(bound, 8) for bound in bounds[:8]], limit)
        taken, tokens = [], 0
        for _ in range(rounds):
            seconds, tokens = run_continuous(manager, prompts, bounds, limit)
            taken.append(seconds)
    finally:
        manager.stop(block=True, timeout=5)
    return {"outputTokens": tokens, "seconds": taken, "requests": len(prompts)}


@torch.no_grad()
def static_batch(model, prompts, bounds, device):
    longest = max(map(len, prompts))
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    out = model.generate(
        ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=max(bounds),
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    made = out.shape[1] - longest
    return sum(min(bound, made) for bound in bounds)


def static(model, prompts, bounds, limit, _rounds, device):
    static_batch(model, prompts[:BATCH], [4] * BATCH, device)
    synchronize(device)
    started = time.perf_counter()
    tokens = at = 0
    while at < len(prompts) and time.perf_counter() - started < limit:
        tokens += static_batch(model, prompts[at : at + BATCH], bounds[at : at + BATCH], device)
        at += BATCH
        synchronize(device)
    return {"outputTokens": tokens, "seconds": [time.perf_counter() - started], "requests": at}


def main():
    folder, requests, mode, limit, device = sys.argv[1:6]
    rounds = int(sys.argv[6]) if len(sys.argv) > 6 else 1
    prompts, bounds = read_requests(requests)
    attention = "paged|sdpa" if mode == "continuous" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation=attention
    ).to(device)
    model.eval()
    if mode == "continuous":
        result = continuous(model, prompts, bounds, float(limit), rounds)
    else:
        result = static(model, prompts, bounds, float(limit), rounds, device)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    gpu = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    print(json.dumps({**result, "versions": versions, "gpu": gpu}))


try:
    main()
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}))
sys.stdout.flush()
# Threads of a manager that hangs must not keep the process.
os._exit(0)
