"""The launcher: starts trainer processes, follows them, and stores what they leave. Imports no torch.

::

    execution    one training, from references to a stored adapter
    supervisor   attempts until a trainer reaches its end, with less memory after running out of it
    process      one trainer process, started and followed to its end
    work_folder  the files that a training keeps between attempts
    protocol     the messages between launcher and trainer
"""
