"""Tensors that outlive what they are made under, and the private name of torch that they need."""

import importlib

import torch

WHAT_TO_DO = (
    "torch has moved a private name: adapt vlmreward/utils/lasting.py, the only file that uses it"
)


def test_torch_keeps_its_private_name():
    module = importlib.import_module("torch._functorch.pyfunctorch")
    assert hasattr(module, "temporarily_clear_interpreter_stack"), WHAT_TO_DO


def test_a_tensor_that_is_made_under_a_transform_outlives_it():
    from vlmreward.utils.lasting import lasting  # which needs the private name

    kept = []

    def value(x):
        with lasting():
            kept.append(torch.ones(3))
        return (x * kept[0]).sum()

    torch.func.grad(value)(torch.rand(3))
    with torch.inference_mode():
        value(torch.rand(3))
    assert not any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in kept), WHAT_TO_DO
    assert not any(t.is_inference() for t in kept)
