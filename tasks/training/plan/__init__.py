"""The plan of a training, made before anything is spent: steps, micro-batches, memory, time, price, and what forbids it.

::

    planning     steps, micro-batches, time, and the next plan after running out of memory (pure)
    memory       bytes by part (pure)
    adapters     the adapter as PEFT makes it, and its size
    preflight    what forbids a training: lengths, device, disk (pure)
    budget       price, ceilings, and a person's approval to exceed them
    hardware     the devices of this machine, or those that a configuration declares
    forecasting  the plan with its estimated time, for a person to read before the run
"""
