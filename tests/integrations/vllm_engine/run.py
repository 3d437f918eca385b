# SPDX-License-Identifier: Apache-2.0
"""One whole engine in a process of its own: python -m tests.integrations.vllm_engine.run REQUEST

REQUEST is a JSON file: checkpoint, tp, options of vllm.LLM, prompts, vocabulary, answer; a LoRA
adapter to ask with, or null; a checkpoint to reload the weights from before it is asked, or null.
Into the file `answer` (.npz) go `logprobs` (prompts, length - 1, vocabulary), of every token at
every position but the first, and `tokens`, the greedy continuations.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

GREEDY = 8  # tokens to continue with


def answer(request: dict[str, Any]) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    prompts, vocabulary = request["prompts"], request["vocabulary"]
    options = {"dtype": "float16", "enforce_eager": True, **request["options"]}
    engine = LLM(
        request["checkpoint"],
        tensor_parallel_size=request["tp"],
        skip_tokenizer_init=True,
        max_model_len=64,
        max_logprobs=-1,
        seed=0,
        **options,
    )
    sampling = SamplingParams(
        max_tokens=GREEDY,
        temperature=0,
        ignore_eos=True,
        prompt_logprobs=vocabulary,
        detokenize=False,
    )
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    adapter = request["adapter"]
    lora = None if adapter is None else LoRARequest("adapter", 1, adapter)
    if request["reload"] is not None:
        engine.generate(asked, SamplingParams(max_tokens=1, detokenize=False))
        engine.reset_prefix_cache()
        engine.collective_rpc("reload_weights", kwargs={"weights_path": request["reload"]})
    outputs = engine.generate(asked, sampling, lora_request=lora)
    logprobs = np.full((len(prompts), len(prompts[0]) - 1, vocabulary), np.nan)
    for row, output in enumerate(outputs):
        for position, found in enumerate(output.prompt_logprobs[1:]):
            for token, value in found.items():
                logprobs[row, position, token] = value.logprob
    tokens = np.array([output.outputs[0].token_ids for output in outputs])
    np.savez(request["answer"], logprobs=logprobs, tokens=tokens)


if __name__ == "__main__":
    answer(json.loads(Path(sys.argv[1]).read_text()))
    # vLLM waits 20 s for its processes; they are ended with the group that this one leads.
    sys.stdout.flush()
    os._exit(0)
