"""Language models as files: where a base model comes from, how it and its adapters are loaded, how a prompt is rendered.

Shared by training, the benchmark, the red team and the label audit. Import the module you need: some of them import torch::

    config      where a base model comes from (no heavy import)
    resolution  a configured base model to a folder in the store
    conversion  a GGUF file to a folder that transformers reads
    devices     the name of the device that answers here (no heavy import)
    loading     base models and adapters into memory
    prompts     conversations to text and tokens
    generation  greedy replies in batches, and likelihoods
"""
