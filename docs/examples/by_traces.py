"""The same by recorded traces: each framework in a process of its own, perhaps on another machine.

python by_traces.py torch && python by_traces.py mindspore && python by_traces.py judge
"""

import sys

from setting import gradients, inputs, taps

from polymae.compare import chained, displaced, parity_of_traces, rounded, save_trace, widened

twins = ["twin0.npz", "twin1.npz", "twin2.npz"]
if sys.argv[1] == "torch":
    import torch_net

    save_trace("oracle.npz", torch_net.run(widened(inputs)), framework="torch", dtype="float64", inputs=inputs)
    for seed, path in enumerate(twins):
        save_trace(path, chained(torch_net.run, seed)(displaced(inputs, seed)), framework="torch", inputs=inputs)
elif sys.argv[1] == "mindspore":
    import mindspore
    import mindspore_net

    where = {"version": mindspore.__version__, "device": "cpu"}
    recorded = mindspore_net.run(rounded(inputs))
    save_trace("mindspore.npz", recorded, framework="mindspore", inputs=inputs, environment=where)
else:  # NumPy alone
    result = parity_of_traces("oracle.npz", twins, ["mindspore.npz"], taps, gradients=gradients)
    print(result)
    sys.exit(result.exit_status)
