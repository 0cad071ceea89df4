"""A device that is pretended: its tensors hold others, on the CPU, and what mixes both is refused as a GPU's would be.

torch's key for devices of others, PrivateUse1, with one fallback in Python for all operations.
"""

import ctypes
from functools import partial

import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
CROSSING = ("aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::index", "aten::_index_put_impl_")
ALIASES = (torch.ops.aten.as_strided.default, torch.ops.aten.view.default)
IN_THEIR_PLACE = {  # what torch leaves to the devices of others
    "convolution_overrideable": torch.ops.aten.convolution.default,
    "convolution_backward_overrideable": torch.ops.aten.convolution_backward.default,
}
ON_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
CPU, OTHERS = 1, 12  # types of devices in DLPack's header
_library = []
crossings = []  # bytes of each copy that left the device


def _moved(tensor, kind):
    """Gives a tensor with the same memory that says that it is on another kind of device."""
    capsule = torch.utils.dlpack.to_dlpack(tensor)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer(capsule, b"dltensor")
    ctypes.c_int32.from_address(address + 8).value = kind  # behind the pointer to the numbers
    return torch.utils.dlpack.from_dlpack(capsule)


def _is_there(value):
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def _here(value):
    if _is_there(value):
        return _moved(value, CPU)
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


def _run(operation, *args, **kwargs):
    if operation in ALIASES:  # which look at no number
        return operation.redispatch(ON_CPU, *args, **kwargs)
    name = operation._schema.name
    given, tree = pytree.tree_flatten((args, kwargs))
    strangers = [each for each in given if isinstance(each, torch.Tensor) and each.dim() and not _is_there(each)]
    if strangers and name not in CROSSING:
        raise RuntimeError(f"{name}: all tensors must be on the same device, got {[each.shape for each in strangers]}")
    if name == "aten::record_stream":
        return None
    held = [_here(each) for each in given]
    arguments, keywords = pytree.tree_unflatten(held, tree)
    if operation is torch.ops.aten.convolution_backward.default:
        arguments = (*arguments[:3], (arguments[2].shape[0],), *arguments[3:])
    if name == "aten::_copy_from":
        if not _is_there(args[1]):
            crossings.append(args[1].nbytes)
        arguments[1].copy_(arguments[0])
        return args[1]
    result = operation(*arguments, **keywords)
    if name == "aten::_to_copy" and (device := kwargs.get("device")) is not None and device.type != NAME:
        crossings.append(result.nbytes)
        return result
    own = {id(inner): outer for inner, outer in zip(held, given, strict=True) if isinstance(inner, torch.Tensor)}

    def there(tensor):
        return own[id(tensor)] if id(tensor) in own else _moved(tensor, OTHERS)

    return pytree.tree_map_only(torch.Tensor, there, result)


def device():
    """Gives the device."""
    if not _library:
        _setup_privateuseone_for_python_backend(NAME)
        library = torch.library.Library("_", "IMPL")
        library.fallback(_run, "PrivateUse1")
        own = torch.library.Library(
            "aten", "IMPL"
        )  # torch's make room in the result, which borrowed memory has none of
        for overload in ("arange", "arange.start", "arange.start_step"):
            own.impl(overload, lambda *args, device, **kwargs: torch.arange(*args, **kwargs).to(device), "PrivateUse1")
        own.impl("abs", lambda tensor: _moved(torch.abs(_here(tensor)), OTHERS), "PrivateUse1")
        for name, operation in IN_THEIR_PLACE.items():
            own.impl(name, partial(_run, operation), "PrivateUse1")
        _library.extend((library, own))
    return torch.device(NAME, 0)


class PretendedAccelerator(Accelerator):
    """Lightning's view of it."""

    def setup_device(self, device):
        pass

    def teardown(self):
        pass

    @staticmethod
    def parse_devices(devices):
        return [0]

    @staticmethod
    def get_parallel_devices(devices):
        return [device()]

    @staticmethod
    def auto_device_count():
        return 1

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def name():
        return NAME


def strategy():
    """Gives the strategy of a Trainer whose learner is on the device."""
    return SingleDeviceStrategy(device=device(), accelerator=PretendedAccelerator())
