"""A decoded upload on its way into the network: resized, with what a certificate must know of that.

No torch here: the service does this part in processes of their own, which should start quickly.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from model.pixels.decode import DecodedImage
from model.pixels.resize import resize_operator
from model.pixels.trim import Box


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """An upload, or a box of it, in the network's square.

    Attributes:
        values: in [0, 1] up to rounding, (3, S, S), float64.
        gain: upper bound of the l2 norm of the resize from the upload, or the box.
        input_error: upper bound of the l2 distance to the same resize in real arithmetic.
        height: of the upload, pixels.
        width: of the upload, pixels.
    """

    values: Float64[np.ndarray, "3 S S"]
    gain: float
    input_error: float
    height: int
    width: int


def network_input(
    image: DecodedImage,
    size: int,
    box: Box | None = None,
    table: UInt8[np.ndarray, " 256"] | None = None,
) -> NetworkInput:
    """The input of a network whose square has this side, of the whole image or a box of it.

    With a `table` it is that of the image whose values were looked up in it.
    """
    pixels = image.pixels if box is None else box.of(image.pixels)
    height, width = pixels.shape[:2]
    resize = resize_operator(height, width, size)
    return NetworkInput(
        resize.apply(pixels, table), resize.gain, resize.input_error, image.height, image.width
    )
