"""Whether torch can compute on a device, said before anything is computed."""

import torch

from model.errors import RetrievalError


def check_device(device: str, error: type[RetrievalError]) -> None:
    """Refuse a device that torch does not know, or that can hold no numbers here.

    `error` is what the asking program raises.

    Raises:
        RetrievalError: of the class given; torch cannot use the device.
    """
    if device.partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise error(f"device {device} is wanted, but this torch finds no accelerator")
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as exc:
        why = str(exc).partition("\n")[0]
        raise error(
            f"device must be one that this torch can use, like cpu or cuda, got {device!r:.40}: "
            f"{why:.100}"
        ) from exc
