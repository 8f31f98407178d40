"""What a model costs on a device, in milliseconds and in bytes of its file.

`table.py` predicts it from sizes, by what was measured at some sizes of the
same model; `probes.py` writes the files that are measured; `measuring.py`,
`benchmark_model.py` and `vela.py` give their times.
"""
