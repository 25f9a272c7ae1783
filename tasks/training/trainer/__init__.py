"""The trainer process: what runs in the child that the launcher starts, one training from rows to adapter.

::

    worker       the program: runs a specification, leaves a report
    run          one training: prepare, plan, time a step, train, measure
    rows         the rows of a training as tokens
    trainers     TRL's trainers for SFT, DPO and KTO, set up by plan; grpo for GRPO, with its rewards
    batches      rows as data sets and batches; sampler for their order
    weights      base model and adapter in memory and on disk; sharding where no device holds the model
    kernels      faster layers; head for a faster loss on CPUs
    callbacks    what happens between steps; checkpoints for resuming, ledger for the rows of each step
    measuring    losses, preference rates and rewards before and after; timing for one step
    adapter      the finished adapter as a folder
    failures     what libraries raise, by what it means
    ranks        which of several processes this one is
"""
