"""Makes test/golden/files/tokenizers: two small tokenizers trained on datasets/prose, and what the `tokenizers` library
(pip install tokenizers) makes of some texts with them. Run from the repository's root."""

import gzip
import json
import os

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = "test/golden/files/tokenizers"
TEXTS = [
    "",
    "Call me Ishmael.",
    "In a country where the people are free, liberty and law are one.",
    "  two  spaces and\ttabs\n\nand lines\r\n",
    "naïve café — ‘quotes’ … № 5",
    "東京の天気は晴れ 🐋🚢 👩‍👩‍👧",
    "1234567890 3.14159 $1,000,000",
    "don't won't I'll they've",
    "<|bos|> in the text <|eos|>",
    "\u0000\u0001\ufffd\ud7ff",
]


def prose():
    with gzip.open("datasets/sources/prose.jsonl.gz", "rt") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|eos|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(prose(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    return tokenizer


def byte_fallback():
    """In the way of Llama 2: spaces as marks, unknown characters as bytes."""
    words = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special + words)
    trained.train_from_iterator(prose(), trainer)
    # The byte tokens are ordinary ones, not added: made so by writing the file anew.
    made = json.loads(trained.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(made))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def main():
    for name, tokenizer in [("byte-level", byte_level()), ("byte-fallback", byte_fallback())]:
        folder = f"{FOLDER}/{name}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/tokenizer.json", "w") as file:
            file.write(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n")
        cases = []
        for text in TEXTS:
            ids = tokenizer.encode(text).ids
            cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
        with open(f"{folder}/golden.json", "w") as file:
            json.dump(cases, file, indent=1)
            file.write("\n")


main()
