"""Makes tokenizer.json and vectors.json: `pip install tokenizers==0.23.3 && python make.py` in this folder."""

import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

here = pathlib.Path(__file__).parent
docs = sorted((here / "../../../../docs").resolve().glob("*.md"))
split = r"(?i:'(?:s|d|m|t|ll|ve|re))|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"

tokenizer = Tokenizer(models.BPE())
tokenizer.normalizer = normalizers.NFC()
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(split), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
trainer = trainers.BpeTrainer(
    vocab_size=600,
    special_tokens=["<|begin|>", "<|end|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
)
tokenizer.train([str(page) for page in docs], trainer)
tokenizer.post_processor = processors.TemplateProcessing(
    single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
)

random.seed(7)
alphabet = "abz AZ  09'\n\r\t.,!éßÅ日本語🙂\u200d👩‍🚀ا\u0301e\u00a0-_<|"
texts = [
    "",
    "a",
    "The block is held by two workers.",
    "I'LL say it's 1234567 blocks,   and\n\n  two lines\r\n",
    "trailing spaces   ",
    "<|begin|>already there<|end|> and behind",
    "Größe, naïve café, e\u0301 composed, 日本語のテキスト, 🙂👩‍🚀",
    "fn main() { println!(\"{}\", 0x1f); }\t// why",
] + ["".join(random.choice(alphabet) for _ in range(random.randrange(1, 60))) for _ in range(40)]
vectors = [{"text": text, "ids": tokenizer.encode(text).ids} for text in texts]

tokenizer.enable_truncation(max_length=8)
tokenizer.save(str(here / "tokenizer.json"), pretty=False)
(here / "vectors.json").write_text("[\n" + ",\n".join(json.dumps(v) for v in vectors) + "\n]\n")
