"""Base models as files, in memory and as numbers, and the one rendering of conversations.

Training, the benchmark, the red team and the label audit share this package. Import the module you need, because some of
them import torch::

    config         where a base model comes from (no heavy import)
    resolution     a configured base model becomes a folder in the store
    hub            a model's files from the hub or its cache
    conversion     a GGUF file becomes a folder that transformers reads
    dequantization quantised weights become plain ones
    profile        what is particular about a base model
    shape          the sizes of a base model, from its configuration (no heavy import)
    devices        the name of the device that generates here (no heavy import)
    loading        base models and adapters into memory
    templates      chat templates with what training and serving need (no heavy import)
    conversations  conversations as text and tokens: prompts, and replies to them
    template_profile  what was added to a chat template
    rendering      whether conversations can be trained on, checked on real rows
    generation     greedy replies in batches, and likelihoods
    stored         a model of the run's store, ready to generate
    embedding      texts as vectors
"""
