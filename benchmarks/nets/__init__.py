"""Nets of other people's kind, each in PyTorch and ported to every framework, right and with planted faults.

settings: what each net runs on and what is compared. torch_nets: the reference. torch_port, megengine_nets, mindspore_nets,
oneflow_nets: right ports, as a user of that framework writes them, which read alike line for line. faults: what a porter gets
wrong in them. judging: the process of one framework. Importing this package imports no framework.
"""
