"""Our exception hierarchy; `service/errors.py` maps each class to a status.

RetrievalError
├── DependencyError               a library is missing, or two that exclude each other are present
├── ImageError                    an image cannot be used
│   ├── EmptyImageError           no bytes
│   ├── ImageBytesError           more bytes than allowed
│   ├── ImageFormatError          not a format the decode policy allows
│   ├── ImageSizeError            no pixels, too many pixels, or a side too long
│   └── ImageDecodeError          truncated or damaged
├── EmbeddingError                the network's input or output is not usable (shape, NaN, infinity)
├── CheckpointError               a weight file is damaged, strange, or claims less than is proved
├── CertificateError              a certificate was asked of numbers that cannot carry one
├── MetricError                   a metric or teacher is unknown, or what it is made of is unusable
├── DataError                     a set of pictures or triplets is not what it should be
├── CorpusError                  a training corpus cannot be made: its recipe, a package, a source
├── TrainingError                a training run cannot start, go on or be taken up again
├── AttackError                   an attack was asked for that cannot be run on this metric
├── EvaluationError               an evaluation has nothing to measure, or unreadable limits
└── (index_builder.errors)        SourceError, IndexError family
"""


class RetrievalError(Exception):
    """Root of every error this project raises on purpose."""


class DependencyError(RetrievalError):
    """A library is missing, or two that exclude each other are installed."""


class ImageError(RetrievalError):
    """An image cannot be used; the subclass says why."""


class EmptyImageError(ImageError):
    """There are no bytes to decode."""


class ImageBytesError(ImageError):
    """The encoded image has more bytes than allowed."""


class ImageFormatError(ImageError):
    """The content is not of a format that the decode policy allows."""


class ImageSizeError(ImageError):
    """The image has no pixels, too many, or a side that is too long."""


class ImageDecodeError(ImageError):
    """The image is truncated or damaged."""


class EmbeddingError(RetrievalError):
    """The network's input or output cannot be used: wrong shape, NaN or infinity."""


class CheckpointError(RetrievalError):
    """A weight file is damaged, incomplete, strange, or claims less than is proved."""


class CertificateError(RetrievalError):
    """A certificate was asked of numbers that cannot carry one."""


class MetricError(RetrievalError):
    """A metric or a teacher is unknown, or its weights or stored embeddings cannot be used."""


class DataError(RetrievalError):
    """A set of pictures or of triplets is missing, damaged, or not of its layout."""


class TrainingError(RetrievalError):
    """A training run cannot start, go on, or be taken up again; the message says what to change."""


class AttackError(RetrievalError):
    """An attack was asked for that this metric, space or plan does not allow."""


class CorpusError(RetrievalError):
    """A training corpus cannot be made: the recipe, a package or a source is the reason."""


class EvaluationError(RetrievalError):
    """An evaluation was asked of too little, of two of one name, or with unreadable limits."""
