"""Makes the small models of files/llama-*: random weights, and what Hugging Face transformers computes with them.

    python make_llama.py

Needs transformers 5.17 and torch. Each folder has a model as `save_pretrained` writes it, and `golden.json`: prompts with
greedy outputs and the margin by which each token won, the logits behind the first prompt's tokens, and pooled final
hidden states. All is computed in float32 over weights that were rounded to the type of the file. `rope.json` has cosines
and sines at far positions.
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, MistralConfig, Qwen2Config

FILES = Path(__file__).parent / "files"
NEW_TOKENS = 24

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHARED = {"max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.3}

MODELS = {
    # Every bias, a head of its own, nine query heads for three of keys, scaled rotation.
    "llama-biased": (
        LlamaConfig(
            vocab_size=32, hidden_size=45, intermediate_size=24, num_hidden_layers=2, num_attention_heads=9,
            num_key_value_heads=3, head_dim=16, attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
            rope_parameters=LLAMA3, **SHARED,
        ),
        torch.float16,
        "10GB",
    ),
    # Biases of queries, keys and values alone; several files.
    "llama-qwen2": (
        Qwen2Config(
            vocab_size=40, hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, tie_word_embeddings=True, **SHARED,
        ),
        torch.float32,
        "20KB",
    ),
    # Heads that are wider together than the hidden state; an odd vocabulary.
    "llama-mistral": (
        MistralConfig(
            vocab_size=37, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, sliding_window=None, tie_word_embeddings=False, **SHARED,
        ),
        torch.bfloat16,
        "10GB",
    ),
}


def randomized(config, dtype):
    """A model whose biases and norms are random too, rounded to `dtype`."""
    torch.manual_seed(len(config.model_type) + config.hidden_size)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    return model.to(dtype)


@torch.no_grad()
def greedy(model, prompt):
    tokens, output, margins = list(prompt), [], []
    for _ in range(NEW_TOKENS):
        logits = model(torch.tensor([tokens])).logits[0, -1]
        best, second = torch.topk(logits, 2).values.tolist()
        output.append(int(logits.argmax()))
        margins.append(round(best - second, 5))
        tokens.append(output[-1])
    return {"prompt": prompt, "output": output, "margin": margins}


@torch.no_grad()
def golden(model, vocabulary):
    generator = torch.Generator().manual_seed(7)
    prompts = [
        torch.randint(2, vocabulary, (length,), generator=generator).tolist() for length in (1, 7, 33, 70)
    ]
    tokens = torch.tensor([prompts[1]])
    hidden = model.model(tokens).last_hidden_state[0]
    pooled = {"mean": hidden.mean(0), "last": hidden[-1], "first": hidden[0]}
    normalized = torch.nn.functional.normalize(pooled["mean"], dim=0)
    return {
        "made": f"transformers {transformers.__version__}, float32 compute, greedy",
        "samples": [greedy(model, prompt) for prompt in prompts],
        "logits": model(tokens).logits[0].tolist(),
        "pooled": {name: value.tolist() for name, value in pooled.items()} | {"normalized": normalized.tolist()},
    }


def rope_table(parameters, head_dim, positions):
    config = LlamaConfig(
        hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, rope_parameters=parameters,
        max_position_embeddings=131072,
    )
    rotation = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = rotation(torch.zeros(1), torch.tensor([positions]))
    half = head_dim // 2
    return {
        "parameters": parameters,
        "headSize": head_dim,
        "positions": positions,
        "cos": cos[0, :, :half].tolist(),
        "sin": sin[0, :, :half].tolist(),
    }


def main():
    for name, (config, dtype, shard_size) in MODELS.items():
        folder = FILES / name
        model = randomized(config, dtype)
        model.save_pretrained(folder, max_shard_size=shard_size)
        # Loaded anew, as a cast would round the rotation's frequencies too.
        wide = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        text = json.dumps(golden(wide, config.vocab_size), separators=(",", ":"))
        (folder / "golden.json").write_text(text + "\n")
    far = [0, 1, 2, 100, 8191, 131071]
    real = LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 8192}
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    tables = [rope_table(plain, 32, far), rope_table(real, 64, far), rope_table(LLAMA3, 16, far)]
    (FILES / "llama-rope.json").write_text(json.dumps(tables, separators=(",", ":")) + "\n")


main()
